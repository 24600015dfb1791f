"""What a run measures and writes while it trains: held-out scores, extraction, a sample of text."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from hlm_jax.language_model import LanguageModel, sampling_of
from hlm_jax.measures.extraction import extracted_tokens
from hlm_jax.measures.score import Evaluator, scores, total
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import Params
from hlm_jax.training.material import Material

BATCH_TOKENS = 4096  # of one dispatch of the evaluator


class Validation:
    """Scores the validation chapters and writes from the config's prompt, in float32.

    Knows nothing of steps, files or when it is its turn.
    """

    def __init__(self, config: ConfigDict, material: Material, model: GPT):
        self._material, self._model, self._config = material, model, config
        rows = max(1, min(64, BATCH_TOKENS // config.model.block_size))
        self._evaluator = Evaluator(model, batch_size=rows)

    def run(self, params: Params) -> dict[str, float]:
        """Scores of the validation chapters, by name.

        Returns:
          "val_nats_per_token" and "val_bits_per_char". With `train.eval_extraction` also
          "extracted_share", the fraction of training passages that greedy decoding repeats in full,
          and "extracted_tokens", the mean number of tokens that it repeats.
        """
        material = self._material
        nats = self._evaluator.token_nats(params, material.val_sequences)
        score = total(scores(nats, material.val_texts))
        values = {
            "val_nats_per_token": score.nats_per_token,
            "val_bits_per_char": score.bits_per_char,
        }
        windows = material.extraction_windows
        if len(windows):
            lengths = extracted_tokens(self._model, params, windows)
            values |= {
                "extracted_share": float(np.mean(lengths == windows.shape[1] // 2)),
                "extracted_tokens": float(lengths.mean()),
            }
        if jax.process_count() > 1:  # unlike hosts round differently, but must decide alike
            agreed = multihost_utils.broadcast_one_to_all(np.array([*values.values()], np.float64))
            values = dict(zip(values, agreed.tolist(), strict=True))
        return values

    def sample(self, params: Params) -> str:
        """The config's prompt and what the model writes after it."""
        prompt = prompt_of(self._config, self._material)
        return write_sample(self.language_model(params), self._config, prompt)

    def language_model(self, params: Params) -> LanguageModel:
        """The model under these weights as readers use it."""
        tokenizer, sampling = self._material.tokenizer, sampling_of(self._config)
        return LanguageModel(
            self._model, params, tokenizer, sampling, convert=self._config.corpus.convert
        )


def prompt_of(config: ConfigDict, material: Material) -> str:
    """What a run's samples continue: the config's prompt, or how a chapter of the book begins."""
    return config.sample.prompt or material.report["opening"]


def write_sample(language_model: LanguageModel, config: ConfigDict, prompt: str) -> str:
    """The prompt and its continuation, drawn with the config's own settings and seed."""
    (text,) = language_model.generate(
        prompt, max_new_tokens=config.sample.max_new_tokens, seed=config.seed
    )
    return prompt + text
