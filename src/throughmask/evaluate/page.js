"use strict";
const tools = document.querySelector(".tools");
const list = document.querySelector(".scenes");
const scenes = [...list.children].map((item) => ({
  item,
  number: Number(item.dataset.scene),
  scores: JSON.parse(item.dataset.scores),
  words: item.querySelector("h2").textContent.toLowerCase(),
  verbs: item.dataset.verbs.split(" "),
}));

function arrange() {
  const { words, group, verb, sort } = Object.fromEntries(new FormData(tools));
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const value = (scene) => (sort === "scene" ? scene.number : scene.scores[sort] ?? Infinity);
  scenes.sort((a, b) => {
    const x = value(a), y = value(b);
    return x === y ? a.number - b.number : x - y; // two infinities have no difference
  });
  let shown = 0;
  for (const scene of scenes) {
    const fits = wanted.every((word) => scene.words.includes(word))
      && (!group || scene.item.dataset.group === group) && (!verb || scene.verbs.includes(verb));
    scene.item.hidden = !fits;
    shown += fits;
    list.append(scene.item);
  }
  tools.querySelector("output").textContent = `${shown} of ${scenes.length} scenes`;
}

// The clips of a scene are played together, from the start.
function toggle(item, play) {
  const button = item.querySelector(".play");
  for (const video of item.querySelectorAll("video")) {
    if (play) {
      video.currentTime = 0;
      video.play().catch(() => {});
    } else {
      video.pause();
    }
  }
  button.textContent = play ? "pause" : "play";
}

list.addEventListener("click", (event) => {
  if (!event.target.closest("video, .play")) return;
  const item = event.target.closest(".scene");
  toggle(item, item.querySelector(".play").textContent === "play");
});
for (const video of document.querySelectorAll("video")) video.controls = false;
for (const button of document.querySelectorAll(".play")) {
  button.hidden = !button.closest(".scene").querySelector("video");
}
tools.hidden = false;
tools.addEventListener("input", arrange);
tools.addEventListener("submit", (event) => event.preventDefault());
arrange();
