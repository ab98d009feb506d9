vllm serve TheBloke/Mistral-7B-Instruct-v0.2-GPTQ --quantization gptq_marlin
vllm serve neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8
vllm serve unsloth/Llama-3.2-3B-Instruct-bnb-4bit --load-format bitsandbytes --quantization bitsandbytes
vllm serve mlx-community/Qwen3-4B-4bit
vllm serve ./models/tinyllama-1.1b-chat-v1.0.Q8_0.gguf --tokenizer TinyLlama/TinyLlama-1.1B-Chat-v1.0
