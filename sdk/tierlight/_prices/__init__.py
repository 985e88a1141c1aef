"""Where unit prices come from: the user's file, genai-prices, a trimmed copy of LiteLLM's map. `tierlight.pricing` asks here."""
