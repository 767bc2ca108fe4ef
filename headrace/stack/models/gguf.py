"""Turns a GGUF file into the folder of safetensors and tokenizer files that vLLM reads.

Runs as a program, `python -m headrace.stack.models.gguf FILE FOLDER`, so that its end frees torch's memory.
"""

import sys
import tempfile
from pathlib import Path


def convert(file: Path, folder: Path) -> None:
    """Write the model to `folder` in bfloat16, with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name, "local_files_only": True}
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    # vLLM has no GGUF kernels for CPUs, and a quantised model cannot be saved as safetensors.
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)


if __name__ == "__main__":
    # torch makes a cache folder among the temporary files and leaves it. Here it is removed with the work folder.
    tempfile.tempdir = str(Path(sys.argv[2]).parent)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
