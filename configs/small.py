"""For two CPU cores and an hour: 5 layers x 320, 20 % of the inputs corrupted, heavy decay in the place of dropout, vocabulary 2500.

Command:  python -m hlm_jax.train --config configs/small.py --workdir runs/small
Time:     48 minutes on two CPU cores with bfloat16 products, by its own last lines.
Result:   5.51 bits per character on the validation chapters (step 3900), 0.912 of the 5-gram; the last 300 steps overfit a little.
"""

from configs import tiny


def get_config():
    config = tiny.get_config()
    config.tokenizer.update(character_coverage=0.98)
    config.model.update(vocab_size=2500, block_size=256, n_layer=5, n_head=10, n_embd=320, dropout=0.0)
    config.optim.update(warmup_steps=100, weight_decay=0.3)
    config.train.update(batch_size=8, corrupt_inputs=0.2, ema_decay=0.99, steps=4200, eval_every_steps=300, log_every_steps=50)
    config.checkpoint.update(every_steps=300)
    return config
