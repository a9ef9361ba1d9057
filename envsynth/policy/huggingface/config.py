"""The configuration of a policy as `config.json` of Hugging Face, and back.

Reading is strict. A key is a number that the policy has, an option that must have the one value which the policy
computes, or listed as without meaning for the function; any other key is refused, because what is not understood cannot
be computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from envsynth.errors import SpecError
from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig, YarnConfig

MODEL_TYPE: Final = "deepseek_v32"
"""Value of `model_type`."""
ARCHITECTURE: Final = "DeepseekV32ForCausalLM"
"""Name of the class in `architectures`."""

_POLICY: Final = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings")
_ATTENTION: Final = (
    "num_attention_heads",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
)
_INDEXER: Final = ("index_n_heads", "index_head_dim", "index_topk")
_EXPERTS: Final = (
    "n_routed_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "moe_intermediate_size",
    "n_group",
    "topk_group",
    "norm_topk_prob",
)
_YARN: Final = ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")

ONLY: Final[Mapping[str, Any]] = {
    "model_type": MODEL_TYPE,
    "hidden_act": "silu",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0,
    "tie_word_embeddings": False,
    "rope_interleave": True,
}
"""Options with one value that the policy computes; all but `model_type` may be absent."""

WITHOUT_MEANING: Final = frozenset(
    {
        # What the weights are stored as, who wrote the file.
        *("dtype", "torch_dtype", "transformers_version", "_name_or_path", "_attn_implementation"),
        # Tokens that a tokenizer or a generation loop looks for.
        *("bos_token_id", "eos_token_id", "pad_token_id"),
        # Fresh weights, losses of pretraining, outputs, and how work is spread over devices.
        *("initializer_range", "aux_loss_alpha", "seq_aux", "router_aux_loss_coef", "ep_size", "pretraining_tp"),
        *("use_cache", "output_router_logits", "output_attentions", "output_hidden_states", "return_dict"),
        # Labels and chunks of other heads, which every configuration of the library may carry.
        *("id2label", "label2id", "problem_type", "chunk_size_feed_forward", "is_encoder_decoder"),
        # Derived from other keys; the library overwrites what stands here.
        *("head_dim", "qk_head_dim"),
    }
)
"""Keys that change nothing of what the model computes."""

_LAYERS: Final = frozenset({"first_k_dense_replace", "mlp_layer_types", "layer_types", "num_nextn_predict_layers"})
_ROPE: Final = frozenset({"rope_parameters", "rope_scaling", "rope_theta"})
_OTHER: Final = frozenset({"architectures", "num_key_value_heads", "quantization_config"})
_NUMBERS: Final = frozenset({*_POLICY, *_ATTENTION, *_INDEXER, *_EXPERTS, "rms_norm_eps", "routed_scaling_factor"})


def huggingface_config(config: PolicyConfig) -> dict[str, Any]:
    """Give the arguments of `transformers.DeepseekV32Config` for the same model.

    `index_precision` has no counterpart: it says how scores are computed, and transformers always computes them exactly.

    Args:
        config: The policy's configuration.

    Returns:
        Keyword arguments.

    Raises:
        SpecError: The indexer rotates neighbours, or a group has a single expert; DeepSeek-V3.2 has neither.
    """
    attention, indexer, experts = config.attention, config.indexer, config.experts
    if indexer.index_rope_interleave:
        raise SpecError("DeepSeek-V3.2 rotates halves in the indexer: index_rope_interleave must be False, got True")
    if experts.n_routed_experts // experts.n_group < 2:
        raise SpecError(
            "DeepSeek-V3.2 scores a group by its best two experts: n_routed_experts must be at least twice"
            f" n_group={experts.n_group}, got {experts.n_routed_experts}"
        )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": attention.rope_theta}
    if attention.yarn is not None:
        rope |= {"rope_type": "yarn", **{name: getattr(attention.yarn, name) for name in _YARN}}
    return {
        **{name: getattr(config, name) for name in _POLICY},
        **{name: getattr(attention, name) for name in _ATTENTION},
        **{name: getattr(indexer, name) for name in _INDEXER},
        **{name: getattr(experts, name) for name in _EXPERTS},
        "first_k_dense_replace": config.first_k_dense_replace,
        "rms_norm_eps": config.rms_norm_eps,
        "num_key_value_heads": attention.num_attention_heads,
        "rope_parameters": rope,
        "routed_scaling_factor": experts.routed_scaling_factor,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        **({"num_nextn_predict_layers": config.num_nextn_predict_layers} if config.num_nextn_predict_layers else {}),
    }


def policy_config(data: Mapping[str, Any]) -> PolicyConfig:
    """Read what `config.json` says.

    Rotation may stand in `rope_parameters`, or as in the released files in `rope_scaling` and `rope_theta`; dense layers
    in `mlp_layer_types`, or else in `first_k_dense_replace`, in the same order as `transformers` looks for them.
    `quantization_config` says how weights are stored, and is read with them.

    Args:
        data: The content of the file.

    Returns:
        The configuration; its indexer computes exactly, as in `transformers`.

    Raises:
        SpecError: The policy cannot compute what the file asks for, a key is unknown or missing, or a value is impossible.
    """
    _check_options(data)
    heads, groups = data.get("num_attention_heads"), data.get("num_key_value_heads")
    if groups not in (None, heads):
        raise SpecError(
            _told("num_key_value_heads", groups, f"every head has keys of its own, so it must be {heads!r}")
        )
    theta, yarn = _rope(data)
    return PolicyConfig(
        **_counts(data, _POLICY),
        first_k_dense_replace=_dense_layers(data),
        num_nextn_predict_layers=_count(data, "num_nextn_predict_layers") if "num_nextn_predict_layers" in data else 0,
        rms_norm_eps=_number(data, "rms_norm_eps"),
        attention=AttentionConfig(**_counts(data, _ATTENTION), rope_theta=theta, yarn=yarn),
        indexer=IndexerConfig(**_counts(data, _INDEXER)),
        experts=ExpertsConfig(
            **_counts(data, _EXPERTS[:-1]),
            norm_topk_prob=_truth(data, "norm_topk_prob"),
            routed_scaling_factor=_number(data, "routed_scaling_factor"),
        ),
    )


def weight_block_size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read how eight-bit weights are scaled.

    How activations would be rounded (`activation_scheme`) is a computation of another engine: here they are not.

    Args:
        data: The content of `config.json`.

    Returns:
        Rows and columns that share a scale; None when the weights are stored as they are.

    Raises:
        SpecError: The weights are quantized in another way.
    """
    quantization = data.get("quantization_config")
    if quantization is None:
        return None
    where = "quantization_config"
    if not isinstance(quantization, Mapping):
        raise SpecError(_told(where, quantization, "it must be a mapping"))
    if quantization.get("quant_method") != "fp8":
        raise SpecError(
            _told(f"{where}.quant_method", quantization.get("quant_method"), "only fp8 with scales per block is read")
        )
    if quantization.get("fmt", "e4m3") != "e4m3":
        raise SpecError(_told(f"{where}.fmt", quantization["fmt"], "only e4m3 is read"))
    block = quantization.get("weight_block_size")
    if not (
        isinstance(block, list | tuple)
        and len(block) == 2
        and all(isinstance(size, int) and size > 0 for size in block)
    ):
        raise SpecError(
            _told(f"{where}.weight_block_size", block, "it must be two counts of rows and columns, such as [128, 128]")
        )
    return block[0], block[1]


def _check_options(data: Mapping[str, Any]) -> None:
    """Refuse unknown and missing keys, and options that the policy does not compute.

    Raises:
        SpecError: There is one.
    """
    if "model_type" not in data:
        raise SpecError(f"config.json has no key 'model_type': only {MODEL_TYPE!r} is read")
    for key, only in ONLY.items():
        if key in data and (data[key] != only or isinstance(data[key], bool) != isinstance(only, bool)):
            raise SpecError(_told(key, data[key], f"the policy computes {only!r} only"))
    named = data.get("architectures")
    if named is not None and named != [ARCHITECTURE]:
        raise SpecError(_told("architectures", named, f"only {[ARCHITECTURE]!r} is read"))
    weight_block_size(data)
    known = {*_NUMBERS, *ONLY, *WITHOUT_MEANING, *_LAYERS, *_ROPE, *_OTHER}
    unknown = sorted(set(data) - known)
    if unknown:
        raise SpecError(
            _told(unknown[0], data[unknown[0]], "the key is unknown; remove it if it changes nothing of the function")
        )
    missing = sorted(_NUMBERS - set(data))
    if missing:
        raise SpecError(f"config.json lacks the keys {missing}: complete it from the model's own file")


def _dense_layers(data: Mapping[str, Any]) -> int:
    """Count the leading layers without experts.

    Raises:
        SpecError: Layers are of another kind, or dense ones do not lead.
    """
    layers = _count(data, "num_hidden_layers")
    attention = data.get("layer_types")
    if attention is not None and attention != ["indexed_attention"] * layers:
        raise SpecError(_told("layer_types", attention, f"every one of {layers} layers must be 'indexed_attention'"))
    kinds = data.get("mlp_layer_types")
    if kinds is not None:
        dense = kinds.count("dense") if isinstance(kinds, list) else -1
        if kinds != ["dense"] * dense + ["sparse"] * (layers - dense):
            raise SpecError(
                _told("mlp_layer_types", kinds, f"it must be 'dense' layers, then 'sparse' ones, {layers} in all")
            )
        return dense
    if "first_k_dense_replace" not in data:
        raise SpecError("config.json lacks 'first_k_dense_replace' and 'mlp_layer_types': say which layers are dense")
    return min(_count(data, "first_k_dense_replace"), layers)


def _rope(data: Mapping[str, Any]) -> tuple[float, YarnConfig | None]:
    """Read base and scaling of the rotation, in the old form or in the new one.

    Raises:
        SpecError: It is of another type than default or YaRN, the forms contradict each other, or a value is impossible.
    """
    forms = [name for name in ("rope_parameters", "rope_scaling") if data.get(name) is not None]
    rope = dict(data[forms[0]]) if forms and isinstance(data[forms[0]], Mapping) else {}
    if forms and any(data[name] != data[forms[0]] or not isinstance(data[name], Mapping) for name in forms):
        raise SpecError(
            _told(forms[-1], data[forms[-1]], "it must be a mapping, and rope_parameters and rope_scaling the same")
        )
    kinds = {rope.pop(name) for name in ("rope_type", "type") if name in rope} or {"default"}
    if kinds not in ({"default"}, {"yarn"}):
        raise SpecError(
            _told(f"{forms[0]}.rope_type", sorted(map(str, kinds)), "only 'default' and 'yarn' are computed")
        )
    bases = [part for part in (rope, data) if part.get("rope_theta") is not None]
    if not bases:
        raise SpecError("config.json lacks 'rope_theta', in 'rope_parameters' or beside it: complete it")
    theta = _number(bases[0], "rope_theta")
    if len(bases) > 1 and _number(data, "rope_theta") != theta:
        raise SpecError(_told("rope_theta", data["rope_theta"], f"{forms[0]} says {theta}"))
    rope.pop("rope_theta", None)
    if kinds == {"yarn"}:
        return theta, _yarn(rope, forms[0])
    if rope:
        raise SpecError(_told(f"{forms[0]}.{min(rope)}", rope[min(rope)], "the default rotation has no such key"))
    return theta, None


def _yarn(rope: Mapping[str, Any], where: str) -> YarnConfig:
    """Read YaRN.

    Raises:
        SpecError: It is another variant, or a value is impossible.
    """
    given = {name: value for name, value in rope.items() if value is not None}
    unknown = sorted(set(given) - {*_YARN, "attention_factor", "truncate"})
    if unknown:
        raise SpecError(_told(f"{where}.{unknown[0]}", given[unknown[0]], "YaRN has no such key"))
    if given.get("truncate", True) is not True:
        raise SpecError(
            _told(f"{where}.truncate", given["truncate"], "bounds of the ramp are rounded outwards: it must be true")
        )
    for name in ("factor", "original_max_position_embeddings"):
        if name not in given:
            raise SpecError(f"config.json lacks {where}.{name}, which YaRN needs")
    for name in ("mscale", "mscale_all_dim"):
        # Without both, the library changes the length of the rotated part alone, and not the softmax.
        if not given.get(name):
            raise SpecError(_told(f"{where}.{name}", rope.get(name), "mscale and mscale_all_dim must both be above 0"))
    numbers = {name: _number(given, name, where) for name in _YARN if name in given}
    numbers["original_max_position_embeddings"] = _count(given, "original_max_position_embeddings")
    yarn = YarnConfig(**numbers)  # pyright: ignore[reportArgumentType]
    stated = given.get("attention_factor", yarn.attention_factor)
    if not isinstance(stated, int | float) or not math.isclose(stated, yarn.attention_factor, rel_tol=1e-9):
        raise SpecError(
            _told(f"{where}.attention_factor", stated, f"mscale and mscale_all_dim give {yarn.attention_factor}")
        )
    return yarn


def _counts(data: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _count(data, name) for name in names}


def _count(data: Mapping[str, Any], name: str) -> int:
    """Give an integer.

    Raises:
        SpecError: It is none.
    """
    value = data[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise SpecError(_told(name, value, "it must be an integer"))
    return value


def _number(data: Mapping[str, Any], name: str, where: str = "") -> float:
    """Give a finite number.

    Raises:
        SpecError: It is none.
    """
    value = data[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise SpecError(_told(f"{where}.{name}" if where else name, value, "it must be a number"))
    return float(value)


def _truth(data: Mapping[str, Any], name: str) -> bool:
    """Give true or false.

    Raises:
        SpecError: It is neither.
    """
    value = data[name]
    if not isinstance(value, bool):
        raise SpecError(_told(name, value, "it must be true or false"))
    return value


def _told(key: str, value: Any, why: str) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= 120 else f"{shown[:120]}…"
    return f"config.json: {key} is {shown}, which the policy cannot represent: {why}"
