"""From settings to the parts of a trainer: precision, what trains, TRL's arguments, the dataset."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from equipoise.config import nearest
from equipoise.data.formatting import Formatted
from equipoise.errors import UserError
from equipoise.models.dtypes import cpu_has_bf16
from equipoise.models.tables import tables
from equipoise.training.settings import CommonSettings, TrainSettings

LINEAR = {"Linear", "Conv1D", "Linear4bit", "Linear8bitLt"}


def pick_precision(model: Any, settings: CommonSettings) -> str:
    """`fp32`, `bf16` or `fp16`; fp16 on a CPU is an error, because accelerate would train in fp32 and not say so."""
    device = model.device.type
    wanted = settings.precision
    if wanted == "auto":
        if device != "cuda":  # an adapter's own products are small, and its base computes in its own format anyway
            half = settings.lora is None and model.dtype in (torch.bfloat16, torch.float16) and device == "cpu"
            return "bf16" if half and cpu_has_bf16() else "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if wanted == "fp16" and device == "cpu":
        raise UserError(
            "training in fp16 needs a GPU",
            where=f"{settings.section}.precision",
            fix="use `auto`, `fp32` or `bf16` on a CPU",
            docs="docs/troubleshooting.md#fp16-on-cpu",
        )
    return wanted


def base_of(model: Any) -> Any:
    """The model itself, without its PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trainable(model: Any, settings: CommonSettings) -> Any:
    """The model with what will be trained in float32: 16-bit weights would round small updates away."""
    from peft import PeftModel

    quantized = getattr(model, "quantization_method", None) is not None
    if isinstance(model, PeftModel):
        return model
    if settings.lora is None:
        if quantized:
            raise UserError(
                "a quantized model cannot be trained in full",
                where=f"{settings.section}.lora",
                fix=f"give {settings.section}.lora (for example `lora: {{}}`), or load the model unquantized",
            )
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            if parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.float()
    return model


def check_settings(model: Any, settings: CommonSettings, token_rows: Sequence[int] = ()) -> None:
    """Check what only the libraries and the model can tell, before anything is written.

    Raises:
        UserError: there is no such optimizer, no module of the model has a name in `target_modules`, the model brings
            an adapter that does not train `token_rows`, or several processes would restart.
    """
    from peft import PeftModel
    from transformers.training_args import OptimizerNames

    from equipoise.models.token_rows import trained_rows

    optimizers = [str(name.value) for name in OptimizerNames]
    if settings.optimizer not in optimizers:
        close = nearest(settings.optimizer, optimizers)
        raise UserError(
            f"there is no optimizer {settings.optimizer!r}" + (f"; did you mean {close!r}?" if close else ""),
            where=f"{settings.section}.optimizer",
            fix="take one of transformers' OptimizerNames, such as adamw_torch",
        )
    stopping = settings.stopping if isinstance(settings, TrainSettings) else None
    if stopping is not None and stopping.restarts and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "restarts need a single process: several would shuffle differently",
            where=f"{settings.section}.stopping.restarts",
            fix="set it to 0, or train in one process",
        )
    if isinstance(model, PeftModel) and token_rows:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            found = trained_rows(module)
            if found is None or not set(token_rows) <= set(found.ids.tolist()):
                raise UserError(
                    "the adapter that the model brings does not train the rows of these tokens",
                    where="model.adapter",
                    fix="merge it into its base with `equipoise export`, and start from the merged model",
                )
    if settings.lora is None or isinstance(model, PeftModel) or settings.lora.target_modules == "all-linear":
        return
    targets = settings.lora.target_modules
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        unmatched = [targets] if not any(re.fullmatch(targets, name) for name in names) else []
    else:
        unmatched = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in names)]
    if unmatched:
        leaves = sorted(
            {n.rpartition(".")[2] for n, m in model.named_modules() if getattr(m, "weight", None) is not None}
        )
        raise UserError(
            f"{type(model).__name__} has no module {unmatched[0]!r}",
            where=f"{settings.section}.lora.target_modules",
            fix=f"use all-linear, or some of {', '.join(leaves[:12])}",
        )


def trainable_parameters(model: Any, settings: CommonSettings, token_rows: Sequence[int] = ()) -> int:
    """Count what would train: all, or two factors beside each targeted linear layer and `token_rows` in each table."""
    if settings.lora is None:
        return sum(p.numel() for p in model.parameters())
    targets, head = settings.lora.target_modules, model.get_output_embeddings()
    rows = sum(len(token_rows) * table.shape[1] for table in tables(model))
    return rows + sum(
        settings.lora.r * (module.weight.shape[0] + module.weight.shape[1])
        for name, module in model.named_modules()
        if type(module).__name__ in LINEAR and module is not head and _targeted(name, targets)
    )


def _targeted(name: str, targets: str | list[str]) -> bool:
    if targets == "all-linear":
        return True
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def lora_config(model: Any, settings: CommonSettings, token_rows: Sequence[int] = ()) -> Any:
    """PEFT's config, or None for full fine-tuning and for a model that brings its adapter.

    Args:
        token_rows: ids whose embeddings, input and output, train beside the adapter.
    """
    from peft import LoraConfig, PeftModel

    if settings.lora is None or isinstance(model, PeftModel):
        return None
    from transformers.pytorch_utils import Conv1D

    from equipoise.models.token_rows import indices

    names = settings.lora.target_modules
    head = next((n for n, m in model.named_modules() if m is model.get_output_embeddings()), "lm_head")
    if not isinstance(names, str) and any(head == name or head.endswith("." + name) for name in names):
        raise UserError(
            f"the output head ({head}) cannot carry an adapter: the loss is computed from its weights directly",
            where=f"{settings.section}.lora.target_modules",
            fix=f"take {head!r} out of the list, or use all-linear",
        )
    return LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,  # pyright: ignore[reportArgumentType]  (a float works, and is what papers use)
        lora_dropout=settings.lora.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        trainable_token_indices=indices(model, token_rows) if token_rows else None,
    )


def trainer_arguments(
    settings: CommonSettings, precision: str, folder: Path, checkpoints: Path, seed: int, device: str
) -> dict[str, Any]:
    """What TRL's arguments have in common: nothing logged, saved or evaluated by the trainer on its own account."""
    if settings.tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                "tensorboard is not installed",
                where=f"{settings.section}.tensorboard",
                fix='pip install "equipoise[track]"',
            )
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "logs")
    return {
        "output_dir": str(checkpoints),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "lr_scheduler_kwargs": {"num_cycles": settings.cycles} if settings.scheduler == "cosine_with_restarts" else {},
        "warmup_steps": settings.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm or math.inf,  # 0: measured, not clipped
        "optim": settings.optimizer,
        "seed": seed,
        "data_seed": seed,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": device == "cpu",
        "activation_checkpointing": settings.gradient_checkpointing,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device == "cuda",
        "pad_to_multiple_of": None,
        "save_strategy": "no",  # `Pace` says when
        "eval_strategy": "no",
        "logging_strategy": "steps" if settings.tensorboard else "no",
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,  # it would show the mean of earlier losses for a NaN
        "restore_callback_states_from_checkpoint": True,
        "report_to": ["tensorboard"] if settings.tensorboard else [],
        "disable_tqdm": True,
        "log_level": "error",
    }


def tokenised_dataset(data: Formatted, settings: TrainSettings) -> Any:
    """Token ids, labels and, per token, the index of the example it comes from; packed if asked for."""
    from datasets import Dataset

    columns = {
        "input_ids": [row.input_ids for row in data.rows],
        "labels": [row.labels for row in data.rows],
        "row_index": [[i] * len(row.input_ids) for i, row in enumerate(data.rows)],
    }
    dataset = Dataset.from_dict(columns)
    if settings.packing:
        from trl.data_utils import pack_dataset

        dataset = pack_dataset(dataset, settings.max_length, "bfd")
    return dataset
