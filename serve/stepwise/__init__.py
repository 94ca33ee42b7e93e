"""Language models at run time: prompts in, tokens out, with numpy, onnxruntime and tokenizers alone."""
