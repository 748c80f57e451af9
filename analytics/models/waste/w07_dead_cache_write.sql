-- W07: a prefix was written to the cache, at a premium, and never read. One row per team, model, upstream and prefix.
-- @kind: Always NULL
-- @group_key: Team, model, upstream and prefix
-- @ticket_id: Always NULL
-- @calls: The calls that wrote, with what writing cost above plain input
-- @numbers: Hash of the prefix, tokens written, how many writes
-- @sentence: The same in words
-- The prefix is judged, not the call: the last write of a conversation that went on is nobody's waste.
WITH written AS (
  SELECT
    call_id, started_at, team_id, model, upstream, prefix_hash, cache_write_tokens,
    sum(cache_read_tokens) OVER (PARTITION BY team_id, model, upstream, prefix_hash) AS read_tokens,
    (cache_write_nano - CAST(cache_write_tokens AS HUGEINT) * input_rate // 1000000) * cost_nano // nullif(list_nano, 0) AS nano,
    cache_write_tokens >= settings.w07_tokens
      AND started_at < as_of - to_minutes(CAST(settings.w07_minutes AS BIGINT)) AS is_dead
  FROM waste_calls LEFT JOIN waste_rates USING (price_id, provider, model) CROSS JOIN waste_terms
  WHERE is_counted AND prefix_hash IS NOT NULL
)
SELECT
  NULL AS kind,
  concat_ws('|', coalesce(team_id, ''), coalesce(model, ''), coalesce(upstream, ''), prefix_hash) AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({prefix_hash: prefix_hash, written_tokens: CAST(sum(cache_write_tokens) AS BIGINT), writes: count(*)}) AS numbers,
  format(
    'A prefix was written to the cache {} times, {} tokens in all, and never read.',
    count(*), CAST(sum(cache_write_tokens) AS BIGINT)
  ) AS sentence
FROM written
WHERE is_dead AND read_tokens = 0 AND nano > 0
GROUP BY team_id, model, upstream, prefix_hash
