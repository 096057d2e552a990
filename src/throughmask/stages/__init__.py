"""The two stages as diffusers pipelines, and the one conditioning builder and sampling loop that both share."""
