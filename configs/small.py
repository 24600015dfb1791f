"""The best model that two CPU cores train in an hour: 4 layers x 256, inputs corrupted so that the text cannot be learned by heart.

Command:  python -m hlm_jax.train --config configs/small.py --workdir runs/small
"""

from configs import tiny


def get_config():
    config = tiny.get_config()
    config.tokenizer.update(character_coverage=0.98)
    config.model.update(vocab_size=2500, block_size=256, n_layer=4, n_head=8, n_embd=256, dropout=0.1, embedding_dropout=0.3)
    config.optim.update(warmup_steps=100, weight_decay=0.1)
    config.train.update(batch_size=8, corrupt_inputs=0.2, ema_decay=0.99, steps=2600, eval_every_steps=200, log_every_steps=50)
    config.checkpoint.update(every_steps=200)
    return config
