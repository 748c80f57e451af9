-- How well founded costs are: by what the usage and the price of calls come from. One row per provider, model, price status and usage source.
FROM (
  SELECT
    provider, coalesce(response_model, request_model) AS model, price_status, usage_source, count(*) AS calls,
    count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls, CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens, coalesce(sum(list_cost_usd), 0) AS list_cost_usd
  FROM calls
  WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
  GROUP BY ALL
)
ORDER BY
  list_position(['unpriced', 'fallback', 'alias', 'exact'], price_status),
  list_position(['none', 'partial', 'estimated', 'reported'], usage_source), list_cost_usd DESC, provider, model
