"""Arrays in, arrays out: no files, no text.

An array's name ends in the letters of its axes, such as logits_BTV:

    B  batch (rows)               V  vocabulary
    T  query position             A  automaton states
    S  key position               L  T + 1, a window with its last target
    H  heads (G: B x H)           M  training steps per dispatch
    K  head width                 N  new tokens
    D  model width
    F  hidden width of the MLP    R  rows of texts that are written together
"""
