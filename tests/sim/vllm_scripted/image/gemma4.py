"""Where vLLM keeps the code of Gemma 4. The scripted stand-in looks only whether a patch was mounted over this file."""
