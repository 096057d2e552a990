"""Words of the closed classes, verbs and their forms, and how words inflect.

Lists of nouns stand here only where they mean something, such as what is scenery and what moves of its own accord.
"""

from __future__ import annotations

import re
from functools import cache


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = words("a an the this that these those some any every each another no")
POSSESSIVES = words("my your his her its our their")
NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12,
}  # fmt: skip
MANY = words("several many few multiple various countless numerous dozens hundreds lots")
PRONOUNS = words(
    "i you he she it we they me him her us them itself himself herself themselves myself yourself both nothing "
    "everything everyone everybody someone somebody something anything nobody who"
)
RELATIVES = words("that which who whom whose where")
COORDINATORS = words("and or but then nor plus yet &")
SUBORDINATORS = words(
    "while as when whenever before after until till once because since whilst whereas if although though"
)
PREPOSITIONS = words(
    "about above across after against along alongside amid among amongst around as at atop before behind below "
    "beneath beside besides between beyond by despite down during except following for from in inside into like "
    "near of off on onto out outside over past round since than through throughout till to toward towards under "
    "underneath until up upon versus via with within without"
)
COMPOUND_PREPOSITIONS = (
    "in front of,out of,next to,on top of,away from,ahead of,because of,instead of,close to,inside of,outside of,"
    "off of,along with,together with,in the middle of,on the side of,at the end of,up to,apart from,due to,"
    "except for,thanks to,in the style of,in style of,by means of"
)
ADVERBS = words(
    "up down away back forward forwards backward backwards left right sideways upward upwards downward downwards "
    "leftward leftwards rightward rightwards together apart again around along over off out in on through past by "
    "here there now then soon already just still always never often once twice thrice fast hard high low straight "
    "ahead aside abroad almost also too very quite really so even only well far near further inward outward "
    "clockwise counterclockwise anticlockwise home indoors outdoors upstairs downstairs everywhere nowhere "
    "suddenly meanwhile first finally afterwards later next instead maybe perhaps simultaneously please alone "
    "behind inside outside below above overhead nearby midair onward onwards somewhat rather about back-and-forth "
    "side-to-side forth upright else non-stop sometimes yet not ever"
)
ADVERBIALS = (  # of several words; longer ones first
    "where it is,where they are,where he is,where she is,where it was,a little bit,a few times,as well,"
    "a little,a bit,a lot,a while,two times,three times,many times,several times,once more,one more time,"
    "each other,one another,all around,all over,as one,at once,at first,of course,a bit"
)
NOT_ADVERBS = words(  # in -ly, and yet adjectives, nouns or verbs
    "lively friendly lovely curly woolly silly ugly lonely elderly holy jelly belly fly family butterfly "
    "dragonfly lily bully ally jolly chilly hilly smelly bubbly cuddly wobbly wrinkly prickly fluffly rally apply "
    "supply italy reply firefly housefly gully trolley ghostly deadly daily early only"
)
BE = words("is are was were be been being am 's 're 'm")
GET = words("get gets got getting")
AUXILIARIES = BE | words(
    "do does did has have had having will would can could shall should may might must cannot 'll 'd 've"
)

COLOURS = words(
    "red orange yellow green blue purple violet pink brown black white gray grey golden gold silver beige tan "
    "cyan magenta turquoise teal maroon navy crimson scarlet ivory cream lilac lavender indigo olive amber coral "
    "multicolored multicoloured colorful colourful rainbow blonde ginger dark-haired red-haired checkered striped "
    "spotted dotted plaid transparent dark light bright pale light-blue dark-blue light-green dark-green"
)
POSITIONS = words(
    "left right middle center centre central front back rear top bottom upper lower leftmost rightmost topmost "
    "bottommost foremost nearest closest farthest furthest first second third fourth fifth last left-hand "
    "right-hand far-left far-right inner outer"
)
SIZES = words(
    "big small large little tiny huge giant tall short long thin thick fat wide narrow enormous massive gigantic "
    "slim miniature mini medium medium-sized bigger smaller larger taller shorter biggest smallest largest "
    "tallest heavy light-weight deep shallow round"
)
QUALITIES = words(  # words of praise, mood and surface: a detector gains nothing from them
    "beautiful pretty cute adorable lovely nice majestic graceful vibrant lively happy sad angry calm brave "
    "playful funny energetic fierce gentle friendly lonely curious excited joyful cheerful proud sleepy tired "
    "hungry lazy powerful strong weak elegant sleek stunning amazing breathtaking magnificent gorgeous charming "
    "mysterious epic famous busy quiet noisy loud silent shiny matte glossy dull bright glowing sparkling "
    "gleaming polished smooth rough soft hard wet dry dirty clean fresh new modern ancient broken whole empty "
    "full open closed single lone solitary other same own different realistic detailed cinematic dramatic dynamic "
    "photorealistic intricate delicate serene peaceful tranquil wild tame clever smart silly quick fast slow "
    "rapid swift steady sudden warm cold cool chilly sunny cloudy foggy rainy windy stormy lush dense sandy dusty "
    "muddy rocky grassy icy misty scenic vast picturesque rustic cozy cosy enormous nimble agile mighty regal "
    "fluffy furry hairy fuzzy bushy entire main brand-new well-dressed determined impossible distant nearby alert "
    "poised joyous blurred blurry pristine fiery tender bold loose mid-sized"
)
KINDS = words(  # adjectives that a detector can see, kept in a name
    "hot old young elderly older younger adult baby wooden metal metallic plastic glass paper rubber stone brick "
    "concrete steel iron wool woolen woollen leather crystal ceramic cardboard clay bronze copper brass marble "
    "snowy hooded bearded bald curly blond masked winged toy male female native wild domestic electric square "
    "rectangular triangular oval spherical cubic cylindrical flat curved pointed potted stuffed inflatable "
    "vintage antique asian african indian american chinese japanese european human conical wet"
)
ADJECTIVES = COLOURS | POSITIONS | SIZES | QUALITIES | KINDS

# Verbs by what their objects go through; "go" and such take none.
CONTACT = words(  # the direct object is moved, touched or gone after
    "attract push pull kick hit throw catch carry hold lift drop roll bounce juggle shuffle move ride drive chase "
    "follow pass toss hurl launch fling punch slap strike smack bump knock nudge shove drag tow haul tug grab "
    "grasp seize snatch pick raise lower swing spin turn rotate flip shake tilt slide bring fetch take put place "
    "lay steal swallow bite lick squeeze hug kiss pet stroke tickle tackle wrestle fight attack hunt overtake pat "
    "poke tap press crush smash break cut chop slice stir pour peel fold tear rip twist bend stretch open close "
    "shut wave dribble shoot spike volley pitch bat kick-start head serve dunk fly sail row paddle steer pedal "
    "walk lead guide herd groom feed bathe wash brush dress blow release free feature stack tip topple overturn "
    "hand give offer pluck scoop collect gather wheel trail circle dodge avoid repel approach meet greet embrace "
    "cradle rock balance load unload crash ram slam touch tag trap capture rescue save splash spray sweep clean "
    "wipe paint climb mount inflate deflate pop burst squash stomp trample nuzzle lasso train"
)
INTO = words("bump crash run slam smash knock collide bang roll slide drive ram plow barrel smack fly skid")
CAUSE = words("make let have get help cause allow animate want like need")  # make the dog jump
SEE = words("see show watch depict feature capture film display hear picture reveal portray")
CATENATIVE = words(
    "start begin keep continue stop try go come want like love finish proceed attempt prepare manage refuse fail "
    "seem appear happen tend decide sit stand lie remain need use"
)
COLLIDE = words("collide crash bump smash slam")  # with, into or against something
TAKING = words("do make perform take have eat watch blow")
ENTER = words("enter appear emerge arrive materialize materialise")
PRESENT = words("animate see show watch picture imagine")  # "show the dog running"
HELD = words("hold carry wear have use lift bring take")  # what is held does little of its own
GOING = words("walk run fly drive ride sail pass row swim dance move roll slide turn spin stop start sit")
ERGATIVE = words(  # "roll the ball": the ball rolls
    "roll move spin rotate turn slide bounce drop shake swing fly drive sail float tilt flip open close stop "
    "start break burst melt grow shrink stretch bend twist walk run jump hop drift glide topple tip tumble keep "
    "freeze wobble speed slow rock sway vibrate explode wave sink dance march gallop wag flap blink swim crash"
)
_PHRASAL = (  # with a particle that is no preposition: "picks up the cup"
    "pick up, lift up, put down, set down, knock over, knock down, push over, push down, put on, throw away, "
    "throw out, hold up, blow out, tip over, flip over, fold up, shake off, bring back, give away, hand over, "
    "pour out, tear up, break up, cut up, kick over, open up, roll up, carry off, spit out, hold out, stretch "
    "out, spread out, toss up, take out, pull out, raise up, throw up, turn over, turn on, turn off, put away, "
    "let out, eat up, wash away, sweep up"
)
PHRASAL = frozenset(_PHRASAL.split(", "))
CAMERA_VERBS = words("zoom pan tilt dolly")
OTHER_VERBS = words(
    "cast dump smell sniff tug squawk walk run jump hop leap skip gallop trot canter stroll march wander crawl "
    "creep climb sprint jog race dash rush hurry charge stampede limp stagger stumble trip waddle shuffle strut "
    "prance tiptoe hike skate ski surf snowboard skateboard cycle swim dive float sink drift glide soar hover "
    "flap flutter land perch take fall tumble topple tip collapse wobble sway swing rock tremble shiver vibrate "
    "shake quiver rise ascend descend drop lower lean bow kneel crouch squat duck sit stand lie rest sleep wake "
    "yawn stretch nod blink wink smile laugh giggle grin frown cry weep scream shout yell sing hum talk speak "
    "chat whisper bark meow purr growl roar howl chirp croak neigh moo quack buzz look stare gaze glance watch "
    "peek peer listen hear read write draw paint eat drink chew nibble bite swallow sip taste cook bake fry grill "
    "boil serve play dance twirl whirl pirouette clap cheer wave point gesture salute shrug celebrate exercise "
    "lift train perform juggle act work dig plant grow bloom blossom wilt open close burn glow flicker flash "
    "shine sparkle twinkle smoke steam explode burst erupt melt freeze drip leak flow pour splash spill rain snow "
    "blow ripple crash surge swirl spread shrink expand inflate fade vanish disappear appear emerge enter exit "
    "leave depart arrive return approach retreat reverse turn spin rotate revolve orbit roll slide slip skid "
    "bounce ricochet rebound collide bump stop halt pause wait stay remain start begin continue keep go come move "
    "travel head proceed advance accelerate speed slow brake cruise drive ride sail row fish hunt chase flee "
    "escape hide seek search find lose stalk pounce lunge attack fight wrestle box fence duel spar argue hug kiss "
    "marry wear hold carry use try help make get give receive show reach grab grip touch feel lick scratch groom "
    "wag tuck curl uncurl unfold unfurl fold wrap hang dangle suspend cling attach connect park rumble rattle "
    "clatter whistle ring tick toll rear buck graze feed hatch breathe sneeze cough pant drool sweat bathe shower "
    "wash brush comb shave dress undress relax meditate pose model film record photograph practice practise "
    "rehearse splay crease overlook cross switch swap change transform morph become bend twist wriggle wiggle "
    "squirm slither scurry scamper scuttle scramble hurtle zoom whizz whoosh swoosh swoop plunge plummet "
    "parachute skydive loop circle zigzag weave dart bolt bound frolic romp gambol caper lounge laze snooze nap "
    "doze recline sprawl straddle loom tower cover surround fill stir mix chop type tap drum strum fiddle conduct "
    "shop sweep mop dust iron knit sew build dismantle carve sculpt mow rake shovel plow chug taxi bob dip thrash "
    "flail kick stomp stamp scoot roam rustle prowl patrol shift guard line gather scatter disperse separate "
    "split merge join meet greet part share exchange trade pretend seem happen occur say tell ask think know "
    "believe love like want need hope wish lap beat pulse throb twitch jerk jolt lurch veer swerve steer crumble "
    "crack shatter snap settle stabilize balance level flatten tighten loosen paddle kayak canoe wade toddle "
    "trudge plod amble saunter sashay sidle edge inch lope pedal squeeze dodge clamber hoist heave haul submerge "
    "surface splutter crackle pop fizz bubble foam erode nestle snuggle cuddle nuzzle yelp whimper snore pick fly "
    "hit follow stroke throw"
)

_IRREGULAR = """
be was been | beat beat beaten | become became become | begin began begun | bend bent bent | bite bit bitten | blow
blew blown | break broke broken | bring brought brought | build built built | burst burst burst | catch caught
caught | cling clung clung | come came come | creep crept crept | cut cut cut | dig dug dug | dive dived dived | do
did done | draw drew drawn | drink drank drunk | drive drove driven | eat ate eaten | fall fell fallen | feed fed
fed | feel felt felt | fight fought fought | find found found | flee fled fled | fling flung flung | fly flew flown
| freeze froze frozen | get got gotten | give gave given | go went gone | grind ground ground | grow grew grown |
hang hung hung | have had had | hear heard heard | hide hid hidden | hit hit hit | hold held held | keep kept kept |
kneel knelt knelt | know knew known | lay laid laid | lead led led | leap leapt leapt | leave left left | let let
let | lie lay lain | lose lost lost | make made made | meet met met | put put put | read read read | ride rode
ridden | ring rang rung | rise rose risen | run ran run | say said said | see saw seen | seek sought sought | shake
shook shaken | shine shone shone | shoot shot shot | show showed shown | shrink shrank shrunk | shut shut shut |
sing sang sung | sink sank sunk | sit sat sat | sleep slept slept | slide slid slid | speak spoke spoken | speed
sped sped | spin spun spun | split split split | spread spread spread | spring sprang sprung | stand stood stood |
steal stole stolen | strike struck struck | swim swam swum | swing swung swung | sweep swept swept | take took taken
| tear tore torn | tell told told | think thought thought | throw threw thrown | wake woke woken | wear wore worn |
weave wove woven | weep wept wept | win won won | write wrote written | overtake overtook overtaken | spit spat spat
| sew sewed sewn | stick stuck stuck | sling slung slung
"""
IRREGULAR = {a: (b, c) for a, b, c in (line.split() for line in _IRREGULAR.split("|"))}
VERBS = CONTACT | INTO | CAUSE | SEE | CATENATIVE | OTHER_VERBS | ENTER | CAMERA_VERBS | frozenset(IRREGULAR)
NOT_PARTICIPLES = words(  # in -ing or -ed, and yet nouns
    "building ceiling painting morning evening string ring king wing swing spring thing wedding clothing "
    "lightning duckling sling railing sibling earring herring starling pudding viking gosling sapling seedling "
    "icing awning bed sled shed seed weed reed red bread hundred kindred moped biped quadruped dumpling dumplings "
    "stocking being darling sting sterling during"
)

CAMERA = words("camera lens shot viewpoint perspective footage clip angle viewer view zoom close-up closeup")
FRAME = words("frame picture image view scene screen shot photo photograph video clip frames camera viewer")
SIDES = words(
    "left right top bottom front back center centre middle side background foreground distance edge corner spot "
    "place air direction end way sides front-left front-right left-hand right-hand circle circles line unison "
    "sync opposite rear here there east west north south path"
)
STYLE = words(
    "style 4k 8k hd uhd cinematic photorealistic realistic resolution quality detailed masterpiece render "
    "lighting bokeh aesthetic artstation anime cartoon unreal octane hdr fps dslr painting motion timelapse "
    "time-lapse loop camera view shot zoom close-up closeup film footage"
)
NEVER = (
    CAMERA
    | FRAME
    | words(  # can act in a sentence, and has no silhouette
        "wind breeze gale time day night music sound silence noise weather temperature atmosphere mood light sunlight "
        "moonlight lighting darkness shadow shadows motion movement speed rest everything nothing something moment "
        "way i you we me us style someone anybody scenery background foreground gust color colors colour colours "
        "world life rain thunder storm focus animation everyone sun turn turns step steps trick tricks attention "
        "off-screen offscreen sunset sunrise number kind sort type lot presentation break side "
        "left right front distance"
    )
)
SCENERY = words(
    "sky cloud clouds moon star stars mountain mountains hill hills sea ocean river lake pond water waves wave "
    "surf tide ocean-waves snow snowflakes trees leaves grass field fields meadow forest woods jungle road street "
    "beach sand ground floor ceiling wall walls buildings city town skyline landscape horizon fog mist smoke "
    "steam dust haze stands stand park garden yard valley desert savanna seafloor shore coast sidewalk pavement "
    "path track ice mud room branches flowers bushes plants audience spectators crowd crowds reflection "
    "reflections raindrops rays air"
)
PLACES = (
    SCENERY
    | SIDES
    | FRAME
    | words(
        "house kitchen bathroom bedroom hall pool goal net hole box basket tunnel cave barn cage nest bed sofa couch "
        "chair table shelf desk corner alley stage gym office school shop store station airport harbor harbour port "
        "village distance pit puddle circle trees leaves"
    )
)
PEOPLE = words(
    "man woman boy girl person child kid baby toddler lady gentleman guy teenager teen men women boys girls "
    "people children kids babies player rider driver dancer singer musician chef cook doctor nurse officer "
    "policeman soldier king queen prince princess knight wizard witch astronaut clown magician father mother dad "
    "mom son daughter grandmother grandfather brother sister friend couple bride groom runner surfer skier skater "
    "cyclist biker pilot farmer fisherman hunter worker student teacher goalkeeper athlete pedestrian climber "
    "diver swimmer cowboy skateboarder snowboarder motorcyclist passenger pirate ninja samurai superhero monk "
    "painter artist drummer guitarist pianist violinist conductor referee boxer wrestler gymnast ballerina model "
    "tourist hiker"
)
ANIMALS = words(
    "dog cat horse bird fish cow sheep goat pig duck goose swan chicken rooster hen puppy kitten pony foal calf "
    "lamb rabbit bunny hare fox wolf bear lion lioness tiger leopard cheetah elephant giraffe zebra rhino "
    "rhinoceros hippo hippopotamus monkey gorilla chimpanzee ape panda koala kangaroo deer moose elk camel llama "
    "alpaca donkey mule bull ox buffalo bison squirrel mouse mice rat hamster hedgehog beaver otter seal walrus "
    "dolphin whale shark octopus turtle tortoise frog toad snake lizard crocodile alligator dragon dinosaur "
    "unicorn eagle hawk falcon owl parrot pigeon crow raven sparrow seagull flamingo penguin peacock ostrich "
    "butterfly bee dragonfly ladybug spider ant crab lobster jellyfish snail worm robot alien monster ghost "
    "animal bug insect creature rider"
)
VEHICLES = words(
    "car truck bus train bike bicycle motorcycle motorbike scooter boat ship sailboat canoe kayak plane airplane "
    "jet helicopter jeep van taxi tractor tram ambulance lorry suv atv drone rocket spaceship shuttle yacht raft "
    "cart carriage wagon sled submarine bulldozer excavator"
)
MOVERS = PEOPLE | ANIMALS | VEHICLES
CLOTHES = words("dress shirt suit hat coat jacket costume uniform kimono sari robe cap mask helmet outfit jumpsuit")
BODY = words(
    "tail head hand hands arm arms leg legs eye eyes ear ears wing wings mouth hair face foot feet paw paws fur "
    "nose limb limbs finger fingers beak horn horns mane neck body back shoulder shoulders knee knees trunk lips "
    "tongue teeth feathers claws talons skin beard chest hips toes heads tails mouths faces"
)
GROUPS = words("group flock herd pack school swarm crowd pair couple bunch team pile stack line row set")
_PLURALS = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "geese": "goose",
    "mice": "mouse", "teeth": "tooth", "oxen": "ox", "leaves": "leaf", "wolves": "wolf", "knives": "knife",
    "calves": "calf", "loaves": "loaf", "shelves": "shelf", "firemen": "fireman", "policemen": "policeman",
    "fishermen": "fisherman", "snowmen": "snowman", "cacti": "cactus", "halves": "half", "elves": "elf",
    "scarves": "scarf", "thieves": "thief", "buses": "bus", "horses": "horse", "houses": "house", "vases": "vase",
    "roses": "rose", "noses": "nose", "axes": "axe", "shoes": "shoe", "canoes": "canoe", "cookies": "cookie",
    "movies": "movie", "zombies": "zombie", "pixies": "pixie", "ties": "tie", "pies": "pie",
}  # fmt: skip
COMPOUND_PASTS = words(  # "a moss covered branch"
    "covered filled shaped colored coloured powered painted topped lined sized haired eyed dressed lit"
)
SAME_PLURAL = words("sheep fish deer moose aircraft salmon bison shrimp squid swine")
NOT_PLURAL = words("bus gas bass grass glass dress cross chess lens cactus octopus walrus hippopotamus canvas")


def inflect(lemma: str, form: str) -> str:
    """A verb's `form`: base, third, ing, past or part."""
    if form == "base":
        return lemma
    if form == "third":
        if lemma in ("be", "have"):
            return {"be": "is", "have": "has"}[lemma]
        return _with_s(lemma)
    if form == "ing":
        if lemma.endswith("ie"):
            return lemma[:-2] + "ying"
        return (
            lemma[:-1] if lemma.endswith("e") and not lemma.endswith(("ee", "oe", "be")) else _doubled(lemma)
        ) + "ing"
    if lemma in IRREGULAR:
        return IRREGULAR[lemma][form == "part"]
    if lemma.endswith("e"):
        return lemma + "d"
    if re.search("[^aeiou]y$", lemma):
        return lemma[:-1] + "ied"
    return _doubled(lemma) + "ed"


def _with_s(word: str) -> str:
    if re.search("(s|x|z|ch|sh|[^aeiou]o)$", word) or word == "go":
        return word + "es"
    return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"


def _doubled(word: str) -> str:
    short = re.fullmatch("[^aeiou]*(qu)?[aeiou][^aeiouwxy]", word)
    return word + word[-1] if short or word in ("begin", "forget", "overrun", "unplug") else word


@cache
def _forms() -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for lemma in sorted(VERBS - {"be"}):
        for form in ("base", "third", "ing", "past", "part"):
            word = inflect(lemma, form)
            found[word] = (*found.get(word, ()), (lemma, form))
    for word, lemma in (("dove", "dive"), ("leaped", "leap"), ("kneeled", "kneel"), ("hanged", "hang"), ("got", "get")):
        found[word] = ((lemma, "past"), (lemma, "part"))
    for word in ("left", "ground", "saw", "rose", "felt", "found"):  # nearly always something else
        found.pop(word, None)
    return found


def verb_forms(word: str) -> tuple[tuple[str, str], ...]:
    """(lemma, form) for each known verb that a word may be a form of; nothing for an unknown one."""
    return _forms().get(word, ())


def as_form(word: str, *forms: str) -> str:
    """The lemma of a known verb that `word` is one of `forms` of, or nothing."""
    return next((lemma for lemma, form in verb_forms(word) if form in forms), "")


def is_participle(word: str) -> bool:
    """Whether it reads as an -ing form, known or not."""
    return bool(as_form(word, "ing")) or (len(word) > 4 and word.endswith("ing") and word not in NOT_PARTICIPLES)


def is_past(word: str) -> bool:
    """Whether it reads as a past form or past participle, known or not."""
    if as_form(word, "past", "part"):
        return not as_form(word, "base")
    return len(word) > 4 and word.endswith("ed") and word not in NOT_PARTICIPLES and word not in ADJECTIVES


def is_adverb(word: str) -> bool:
    return word in ADVERBS or (len(word) > 4 and word.endswith("ly") and word not in NOT_ADVERBS)


def is_adjective(word: str) -> bool:
    if word in ADJECTIVES or word in NUMBERS or word.isdigit():
        return True
    long = len(word) > 5 and word.endswith(("ful", "ous", "less", "ible"))
    return long or (len(word) > 7 and word.endswith("able"))


def singular(word: str) -> str:
    """One of what `word` names, if it is a plural; else the word."""
    if word in _PLURALS:
        return _PLURALS[word]
    if not is_plural(word) or word in SAME_PLURAL:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if re.search("(ch|sh|x|ss|zz|to)es$", word) else word[:-1]


def is_plural(word: str) -> bool:
    if word in _PLURALS or word in SAME_PLURAL:
        return word in _PLURALS
    return (
        len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is", "'s")) and word not in NOT_PLURAL
    )
