docker run -p 127.0.0.1:8080:8080 -v ./models:/models --rm -it ghcr.io/ggml-org/llama.cpp:server -m /models/7B/ggml-model-Q4_1.gguf -c 512 --host 0.0.0.0 --port 8080
docker run -d -p 80:80 nginx
