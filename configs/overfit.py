"""The reference recipe in miniature, for a CPU: a GPT-2 of 3 layers x 192 learns eight chapters by heart in about 60 epochs.

Command:  python -m hlm_jax.train --config configs/overfit.py --workdir runs/overfit
Time:     10 minutes on one CPU core with bfloat16 products, by its own last lines.
Result:   docs/overfit.png: training loss falls to 0.74 nats per token while validation rises from epoch 5 on, from 7.5 to 13 bits per
          character; in the end a sixth of the training passages comes back word for word. A demonstration, not a model to use.
"""

from configs import base_heldout


def get_config():
    config = base_heldout.get_config()
    config.split.update(train_every=8)
    config.model.update(block_size=128, n_layer=3, n_head=6, n_embd=192)
    config.optim.update(learning_rate=1e-3)  # 3e-5 is for 89 M parameters and 2000 epochs
    config.train.update(
        batch_size=8, steps_per_dispatch=1, epochs=60, eval_every_steps=200, log_every_steps=20
    )
    config.checkpoint.update(every_steps=200)
    return config
