"""Rules of `config.json` and its `text_config`: the fields that the published classes read (spec 1.2, 1.3).

`PrismaticConfig` reads the top level, and `LlamaConfig` of transformers 4.40 reads `text_config`. A field that is
missing has the default of these classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from muvla.checkpoints.fields import FieldStatus, Irrelevant, Rules, Used, equal_to, judge, number_in
from muvla.checkpoints.metadata import (
    BUILT_IN_KEY,
    CAMERAS_KEY,
    CONFIG,
    FIRST_IMAGE_KEY,
    IMAGES_KEY,
    PROPRIO_KEY,
    SIZE_KEY,
)
from muvla.config.model import SizeConfig

TIMM_MODELS = ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]
LLAMAS = ("llama2-", "vicuna-")  # beginnings of `llm_backbone_id` that mean a Llama
GENERATION = Irrelevant("concerns text generation alone")
LIBRARY = Irrelevant("a record of the library that wrote the file")
DISCRETE = Irrelevant("concerns discrete action tokens and their vocabulary, which no action head reads")
MASKED = Irrelevant("padding is masked")
TRAINING = Irrelevant("concerns the training of the language model alone")

# Fields that every configuration of transformers may have.
GENERATION_FIELDS = """
    bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id
    length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    output_attentions output_hidden_states output_scores prefix remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens temperature tie_word_embeddings top_k top_p typical_p use_cache
"""
LIBRARY_FIELDS = """
    _attn_implementation_autoset _commit_hash _name_or_path architectures auto_map chunk_size_feed_forward dtype
    finetuning_task id2label label2id name_or_path problem_type task_specific_params tokenizer_class torch_dtype
    torchscript transformers_version unsloth_version
"""
COMMON: dict[str, Irrelevant] = {
    **dict.fromkeys(GENERATION_FIELDS.split(), GENERATION),
    **dict.fromkeys(LIBRARY_FIELDS.split(), LIBRARY),
    "pad_token_id": MASKED,
    "initializer_range": TRAINING,
}


def judge_config(config: Mapping[str, Any], size: SizeConfig, statistics: bool) -> Iterator[FieldStatus]:
    """Yields the status of every field of config.json, `text_config` field by field.

    Args:
        config: content of config.json.
        size: size of the policy that the directory gives.
        statistics: the directory has dataset_statistics.json, so `norm_stats` is not read.
    """
    rest = {name: value for name, value in config.items() if name != "text_config"}
    yield from judge(CONFIG, rest, _top_rules(size, statistics))
    text = config.get("text_config")
    if isinstance(text, dict):
        yield from judge(CONFIG, text, _text_rules(size), "text_config.")
    elif "text_config" in config:
        yield FieldStatus(CONFIG, "text_config", "refused", "is no object instead of the language model's fields")


def _top_rules(size: SizeConfig, statistics: bool) -> Rules:
    side = size.image_size
    return {
        **COMMON,
        "model_type": equal_to("openvla"),
        "use_fused_vision_backbone": equal_to(True),
        "vision_backbone_id": Used(lambda value: isinstance(value, str), "a name"),
        "timm_model_ids": equal_to(TIMM_MODELS, None),
        "timm_override_act_layers": equal_to([None, None], None),
        "arch_specifier": Used(
            lambda value: isinstance(value, str) and value.endswith("fused-gelu-mlp"), "a fused GELU projector"
        ),
        "image_sizes": equal_to([side, side], [[side, side], [side, side]], side),
        "llm_backbone_id": Used(
            lambda value: isinstance(value, str) and value.startswith(LLAMAS), f"a name that begins {LLAMAS}"
        ),
        "quantization_config": equal_to(None),
        "norm_stats": Irrelevant("dataset_statistics.json replaces it") if statistics else _any_of(dict),
        "hf_llm_id": Irrelevant("text_config states the language model"),
        "image_resize_strategy": Irrelevant("frames have the model's size before the processor sees them"),
        "llm_max_length": Irrelevant("prompts are not cut"),
        "n_action_bins": DISCRETE,
        "pad_to_multiple_of": DISCRETE,
        "output_projector_states": Irrelevant("adds an output and changes none"),
        "vision_config": equal_to(None),
        **{name: _any_of(object) for name in (SIZE_KEY, BUILT_IN_KEY, IMAGES_KEY, PROPRIO_KEY)},
        **{name: _any_of(object) for name in (CAMERAS_KEY, FIRST_IMAGE_KEY)},  # checked at opening
    }


def _any_of(cls: type) -> Used:
    return Used(lambda value: isinstance(value, cls) or value is None, f"a {cls.__name__}")


def _text_rules(size: SizeConfig) -> Rules:
    default_rope = Used(_is_default_rope, "null or rope_type 'default'")
    return {
        **COMMON,
        "model_type": equal_to("llama"),
        "vocab_size": equal_to(size.vocabulary),
        "hidden_size": equal_to(size.width),
        "intermediate_size": equal_to(size.mlp),
        "num_hidden_layers": equal_to(size.layers),
        "num_attention_heads": equal_to(size.heads),
        "num_key_value_heads": equal_to(size.heads, None),
        "head_dim": equal_to(size.width // size.heads, None),
        "hidden_act": equal_to("silu"),
        "rms_norm_eps": number_in(1e-12, 1.0),
        "rope_theta": number_in(1.0, 1e12),
        "rope_scaling": default_rope,
        "rope_parameters": default_rope,
        "attention_bias": equal_to(False),
        "mlp_bias": equal_to(False),
        "attention_dropout": equal_to(0.0, 0),
        "pretraining_tp": equal_to(1),
        "pruned_heads": equal_to({}, None),
        "is_decoder": Irrelevant("attention is guarded by the mask alone"),
        "is_encoder_decoder": equal_to(False),
        "add_cross_attention": equal_to(False),
        "cross_attention_hidden_size": equal_to(None),
        "tie_encoder_decoder": equal_to(False),
        "use_bfloat16": LIBRARY,
        "tf_legacy_loss": TRAINING,
        "max_position_embeddings": Irrelevant("rotary positions have no end"),
        "quantization_config": equal_to(None),
    }


def _is_default_rope(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() - {"rope_type", "type", "rope_theta"}:
        return False
    theta = value.get("rope_theta", 1.0)
    form = value.get("rope_type", value.get("type", "default"))
    return form == "default" and number_in(1.0, 1e12).fits(theta)


def get_norm_eps(config: Mapping[str, Any]) -> float | None:
    """Returns the epsilon of the language model's norms, where config.json states one that is used."""
    return _stated(config, "rms_norm_eps", number_in(1e-12, 1.0))


def get_rope_theta(config: Mapping[str, Any]) -> float | None:
    """Returns the base of the rotary positions, where config.json states one that is used."""
    text = config.get("text_config")
    nested = text.get("rope_parameters") if isinstance(text, dict) else None
    if isinstance(nested, dict) and _is_default_rope(nested) and "rope_theta" in nested:
        return float(nested["rope_theta"])
    return _stated(config, "rope_theta", number_in(1.0, 1e12))


def _stated(config: Mapping[str, Any], name: str, rule: Used) -> float | None:
    text = config.get("text_config")
    value = text.get(name) if isinstance(text, dict) else None
    return float(value) if value is not None and rule.fits(value) else None
