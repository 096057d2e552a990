"""The method's mathematics (paper Sec. 3.3), torch only: regions, masked attention, layers, objective, guidance.

Tensor names end in their shape. B batch, T frames in pixels, H W pixels, F frames in latents, Y X the token grid,
N = F·Y·X tokens, A heads, E width of a head, D width of a token, L objects (local prompts), S tokens of one text,
C channels of a latent, R runs of equal labels.
"""
