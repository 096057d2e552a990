"""Perception of real pictures (paper Sec. 3.1): Grounding DINO finds objects, SAM 2 segments and follows them."""
