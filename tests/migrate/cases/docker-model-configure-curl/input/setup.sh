curl http://localhost:12434/engines/vllm/_configure -d '{"model": "hf.co/Qwen/Qwen2.5-3B-Instruct", "context-size": 8192, "runtime-flags": ["--tensor-parallel-size", "2", "--max-num-seqs", "16"], "vllm": {"gpu-memory-utilization": 0.8}, "keep_alive": "1h30m"}'
curl -X POST localhost:12434/engines/_configure --data '{"model": "ai/qwen3", "mode": "embedding", "raw-runtime-flags": "--pooling last", "llamacpp": {"reasoning-budget": 512}, "speculative": {"draft_model": "ai/qwen3:0.6B", "num_tokens": 4, "min_acceptance_rate": 0.7}}'
curl localhost:12434/engines/_configure -d @body.json
