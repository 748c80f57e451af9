-- Spend with a gateway key by day. One row per UTC day.
SELECT
  CAST(started_at AS DATE) AS slot, 'spend' AS series, count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls, coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM calls
WHERE key_id = $key
GROUP BY ALL
ORDER BY slot
