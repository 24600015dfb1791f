"""The best model for one GPU, about ten minutes a member: 8 layers x 512, block 256, the regularisation of small.py and more of it.

Command:  python -m hlm_jax.train --config configs/best.py --workdir runs/best-0
          (members of an ensemble: --config.seed=1 --workdir runs/best-1, and so on; then
          python scripts/evaluate.py --ensemble runs/best-* --split val --adaptive --mix_ngram;
          all of them in one model: --config.train.teachers=runs/best-0,runs/best-1 --workdir runs/best-taught)
Time:     for a GPU; not run yet on one. By the count of operations the 16,000 steps of 32 x 256 tokens take 2.3e16 floating-point
          operations, which a card that sustains 40 TFLOP/s does in ten minutes (an estimate).
Result:   unknown: the settings are those of configs/small.py carried over to more weights, with more corruption and dropout.
"""

from configs import small


def get_config():
    config = small.get_config()
    config.model.update(block_size=256, n_layer=8, n_head=8, n_embd=512, dropout=0.2, embedding_dropout=0.4)
    config.optim.update(warmup_steps=100)
    config.train.update(batch_size=32, corrupt_inputs=0.3, steps=16000, eval_every_steps=500, steps_per_dispatch=10, ema_decay=0.999)
    config.checkpoint.update(every_steps=1000)
    return config
