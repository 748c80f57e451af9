-- W07: a prefix was written to the cache, at a premium, and never read. One row per team, model, upstream and prefix.
-- @kind: Always NULL
-- @group_key: Team, model, upstream and prefix
-- @ticket_id: Always NULL
-- @calls: The calls that wrote, with what writing cost above plain input
-- @numbers: Hash of the prefix, tokens written, how many writes
-- @sentence: The same in words
-- The prefix is judged, not the call: the last write of a conversation that went on is nobody's waste. A premium of
-- less than a hundredth is none: parts are rounded.
WITH unread AS (
  SELECT team_id, model, upstream, prefix_hash
  FROM waste_calls
  WHERE is_counted AND prefix_hash IS NOT NULL
  GROUP BY team_id, model, upstream, prefix_hash
  HAVING sum(cache_read_tokens) = 0 AND sum(cache_write_tokens) > 0
),
written AS (
  SELECT
    call_id, started_at, calls.team_id, calls.model, calls.upstream, calls.prefix_hash, cache_write_tokens,
    cache_write_nano, cache_write_nano - cache_write_tokens * fresh_rate // 1000000 AS nano,
    cache_write_tokens >= settings.w07_tokens
      AND started_at < as_of - to_minutes(CAST(settings.w07_minutes AS BIGINT)) AS is_dead
  FROM waste_paid_calls AS calls
    SEMI JOIN unread ON unread.prefix_hash = calls.prefix_hash AND unread.model IS NOT DISTINCT FROM calls.model
      AND unread.team_id IS NOT DISTINCT FROM calls.team_id AND unread.upstream IS NOT DISTINCT FROM calls.upstream
    CROSS JOIN waste_terms
  WHERE is_counted
)
SELECT
  NULL AS kind,
  concat_ws('|', coalesce(team_id, ''), coalesce(model, ''), coalesce(upstream, ''), prefix_hash) AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({
    prefix_hash: prefix_hash, written_tokens: CAST(sum(cache_write_tokens) AS BIGINT), writes: count(*)
  }) AS numbers,
  format(
    'A prefix was written to the cache {} times, {} tokens in all, and never read.',
    count(*), CAST(sum(cache_write_tokens) AS BIGINT)
  ) AS sentence
FROM written
WHERE is_dead AND 100 * nano > cache_write_nano
GROUP BY team_id, model, upstream, prefix_hash
