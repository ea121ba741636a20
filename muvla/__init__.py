"""muvla: a controlled ablation harness for recurrent memory in vision-language-action policies."""

__version__ = "0.1.0"
