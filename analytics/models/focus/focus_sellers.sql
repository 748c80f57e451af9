-- Who sells what providers serve. One row per provider.
-- @provider: Provider
-- @seller: Who sells it, and sends the bill
-- @service: What it is called there
SELECT * FROM (VALUES
  ('openai', 'OpenAI', 'OpenAI API'), ('anthropic', 'Anthropic', 'Claude API'),
  ('aws.bedrock', 'AWS', 'Amazon Bedrock'), ('azure.ai.openai', 'Microsoft', 'Azure OpenAI'),
  ('azure.ai.inference', 'Microsoft', 'Azure AI Inference'), ('gcp.gemini', 'Google', 'Gemini API'),
  ('gcp.gen_ai', 'Google', 'Gemini API'), ('gcp.vertex_ai', 'Google Cloud', 'Vertex AI'), ('cohere', 'Cohere', 'Cohere API'),
  ('deepseek', 'DeepSeek', 'DeepSeek API'), ('groq', 'Groq', 'GroqCloud'), ('mistral_ai', 'Mistral AI', 'Mistral API'),
  ('moonshot_ai', 'Moonshot AI', 'Moonshot API'), ('perplexity', 'Perplexity', 'Perplexity API'), ('x_ai', 'xAI', 'xAI API'),
  ('ibm.watsonx.ai', 'IBM', 'watsonx.ai'), ('openrouter', 'OpenRouter', 'OpenRouter API'),
  ('together', 'Together AI', 'Together API'), ('fireworks', 'Fireworks AI', 'Fireworks API')
) AS sellers(provider, seller, service)
