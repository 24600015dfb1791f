"""The best model for one GPU, about ten minutes a member: small.py's recipe at the width of the reference run, 12 layers x 768.

Command:  python -m hlm_jax.train --config configs/best.py --workdir runs/best-0
          (members of an ensemble: --config.seed=1 --workdir runs/best-1, and so on; then
          python scripts/evaluate.py --ensemble runs/best-* --split val --adaptive --mix_ngram;
          all of them in one model: --config.train.teachers=runs/best-0,runs/best-1 --workdir runs/best-taught)
Time:     for a GPU; not run yet on one. By the count of operations the 5,000 steps of 32 x 256 tokens take 2.1e16 floating-point
          operations, which a card that sustains 40 TFLOP/s does in nine minutes (an estimate).
Result:   unknown. Under heavy decay 3 x 192 was better than 2 x 128 (docs/generalisation.md), which is all that speaks for this width; its
          97 epochs are more than any run there had, hence some dropout and more noise.
"""

from configs import small


def get_config():
    config = small.get_config()
    config.model.update(n_layer=12, n_head=12, n_embd=768, dropout=0.1)
    config.optim.update(weight_decay=1.0)  # at 51 steps an epoch, weights forget themselves in about one
    config.train.update(batch_size=32, corrupt_inputs=0.3, corrupt_anneal=0.0, ema_decay=0.998)  # clean text: the wider, the less it paid
    config.train.update(steps=5000, eval_every_steps=250, steps_per_dispatch=10)
    config.checkpoint.update(every_steps=500)
    return config
