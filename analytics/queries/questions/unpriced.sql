-- Which models have no price, and how many calls is that?
SELECT provider, model, sum(unpriced_calls) AS unpriced_calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
FROM price_coverage
WHERE unpriced_calls > 0
GROUP BY ALL
ORDER BY unpriced_calls DESC
