-- W06: a prompt sent a moment before was paid in full again. One row per team, model, upstream, prefix and UTC day.
-- @kind: Always NULL
-- @group_key: Team, model, upstream, prefix and day
-- @ticket_id: Always NULL
-- @calls: The calls, with what reading the prefix from the cache would have saved
-- @numbers: Hash of the prefix and its tokens, how many calls, seconds since the one before
-- @sentence: The same in words
-- The call before must have begun to answer when this one started: calls that run side by side cannot read from each
-- other. Where its first byte is not known, it must have ended. Caches are of one account with a provider: hence by
-- upstream.
WITH suspects AS (
  SELECT DISTINCT prefix_hash
  FROM waste_calls
  WHERE is_counted AND is_ok AND prefix_tokens > 0 AND 10 * fresh_tokens >= 9 * prefix_tokens
    AND 10 * cache_read_tokens < prefix_tokens AND 10 * cache_write_tokens < prefix_tokens
),
used AS (
  SELECT
    call_id, started_at, on_day, team_id, provider, model, upstream, prefix_hash, prefix_tokens, cache_read_tokens,
    cache_write_tokens, fresh_tokens, fresh_rate, cached_rate,
    coalesce(map_extract_value(settings.w06_minutes_of, provider), settings.w06_minutes) AS minutes,
    coalesce(map_extract_value(settings.w06_tokens_of, provider), settings.w06_tokens) AS tokens,
    coalesce(answered_at, ended_at) AS answered_at
  FROM waste_paid_calls SEMI JOIN suspects USING (prefix_hash) CROSS JOIN waste_terms
  WHERE is_counted AND is_ok AND prefix_tokens IS NOT NULL
),
repeated AS (
  SELECT
    *,
    min(answered_at) OVER just_before AS answered_before_at,
    epoch(started_at) - epoch(max(started_at) OVER just_before) AS gap_s
  FROM used
  WINDOW just_before AS (
    PARTITION BY team_id, model, upstream, prefix_hash ORDER BY started_at
    RANGE BETWEEN to_minutes(CAST(minutes AS BIGINT)) PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING
  )
),
missed AS (
  SELECT
    repeated.*,
    least(prefix_tokens, fresh_tokens) * (fresh_rate - cached_rate) // 1000000 AS nano
  FROM repeated
  WHERE answered_before_at <= started_at
    AND prefix_tokens >= tokens
    AND 10 * cache_read_tokens < prefix_tokens AND 10 * cache_write_tokens < prefix_tokens
    AND 10 * fresh_tokens >= 9 * prefix_tokens
)
SELECT
  NULL AS kind,
  concat_ws('|', coalesce(team_id, ''), coalesce(model, ''), coalesce(upstream, ''), prefix_hash, on_day) AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({
    prefix_hash: prefix_hash, prefix_tokens: max(prefix_tokens), misses: count(*), gap_s_median: median(gap_s)
  }) AS numbers,
  format(
    'The same {} tokens were sent within {} minutes of the last time, {} times on {}, and never read from the cache.',
    max(prefix_tokens), max(minutes), count(*), on_day
  ) AS sentence
FROM missed
WHERE nano > 0
GROUP BY team_id, model, upstream, prefix_hash, on_day
