"""What draws samples: the embedded model, a server that speaks OpenAI's protocol, or vLLM in this process."""
