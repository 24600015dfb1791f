"""The best model for one GPU, about ten minutes a member: small.py's recipe at the width of the reference run, 12 layers x 768.

Command:  python -m hlm_jax.train --config configs/best.py --workdir runs/best-0
          (members of an ensemble: --config.seed=1 --workdir runs/best-1, and so on; then
          python scripts/evaluate.py --ensemble runs/best-* --split val --adaptive --mix_ngram;
          all of them in one model: --config.train.teachers=runs/best-0,runs/best-1 --workdir runs/best-taught)
Time:     for a GPU; not run yet on one. By the count of operations the 5,000 steps of 32 x 256 tokens take 2.1e16 floating-point
          operations, which a card that sustains 40 TFLOP/s does in nine minutes (an estimate).
Result:   unknown. In the sweeps (docs/generalisation.md) wider was better under heavy decay, and longer with still more decay and
          half of the noise left at the end, which is all that speaks for these settings; 97 epochs are more than any run there
          had, hence some dropout and more noise.
"""

from configs import small


def get_config():
    config = small.get_config()
    config.model.update(n_layer=12, n_head=12, n_embd=768, dropout=0.1)
    config.optim.update(
        weight_decay=2.4
    )  # at 51 steps an epoch, weights forget as much of themselves in one as in small.py
    config.train.update(batch_size=32, corrupt_inputs=0.3, corrupt_final=0.15)
    config.train.update(steps=5000, eval_every_steps=250, steps_per_dispatch=10)
    config.checkpoint.update(every_steps=500)
    return config
