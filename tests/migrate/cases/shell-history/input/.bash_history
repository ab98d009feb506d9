#1732000000
ls -la
#1732000001
cd models && vllm serve Qwen/Qwen3-0.6B --max-model-len 4096
#1732000002
export OPENAI_API_KEY=sk-proj-abcdefghijklmnop
ssh me@host
: 1732000003:0;OLLAMA_HOST=0.0.0.0:11434 ollama serve
ollama run llama3.2:1b "hi there"
