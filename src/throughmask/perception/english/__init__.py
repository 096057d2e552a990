"""English by rule, floor by floor: words, nouns, verbs, clauses, who is who, and the telling of it anew."""
