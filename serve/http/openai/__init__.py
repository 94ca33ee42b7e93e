"""Routes for clients of OpenAI's API: chat and text completions of language models, whole or as they come."""
