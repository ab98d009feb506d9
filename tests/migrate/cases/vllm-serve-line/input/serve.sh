#!/bin/sh
# what we start by hand
export CUDA_VISIBLE_DEVICES=0,1
vllm serve meta-llama/Llama-3.1-8B-Instruct --served-model-name llama gpt-4o-mini -tp 2 \
  --max-model-len 32k --dtype bfloat16 --enforce-eager --swap-space 4 --kv-cache-dtype fp8 \
  --chat-template ./templates/llama.jinja --speculative-config '{"method": "ngram", "num_speculative_tokens": 4}' \
  --override-generation-config '{"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.05}' \
  --disable-log-requests --port 8001 --lora-modules sql=./adapters/sql '{"name": "fr", "path": "org/french-lora"}'
