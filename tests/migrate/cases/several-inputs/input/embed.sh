llama-server -m ./bge-small-en-v1.5-f16.gguf --embeddings --port 8081
