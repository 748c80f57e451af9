-- W09: descriptions of tools were sent with each call of a session, and none was ever used. One row per session.
-- @kind: Always NULL
-- @group_key: Session
-- @ticket_id: Always NULL
-- @calls: The calls, with what the descriptions cost: cached, where that much was read from the cache
-- @numbers: Tokens of the descriptions, tools, how many calls
-- @sentence: The same in words
-- A session that may still be running waits. A tool that was used in a call that did not complete was used, too.
WITH idle AS (
  SELECT session
  FROM waste_calls, waste_terms
  WHERE is_counted AND is_work AND session IS NOT NULL
  GROUP BY session
  HAVING count(*) FILTER (is_ok) >= any_value(settings.w09_calls)
    AND count(*) FILTER (is_ok AND (tool_calls IS NULL OR tool_schema_tokens IS NULL)) = 0 AND sum(tool_calls) = 0
    AND min(tool_schema_tokens) FILTER (is_ok) >= any_value(settings.w09_tokens)
    AND max(started_at) < any_value(as_of) - to_minutes(CAST(any_value(settings.w09_minutes) AS BIGINT))
)
SELECT
  NULL AS kind,
  session AS group_key,
  NULL AS ticket_id,
  list({
    call_id: call_id,
    nano: tool_schema_tokens * CASE WHEN cache_read_tokens >= tool_schema_tokens THEN cached_rate ELSE fresh_rate END
      // 1000000
  } ORDER BY started_at, call_id) AS calls,
  to_json({
    tool_schema_tokens: min(tool_schema_tokens), tool_count: max(tool_count), calls: count(*)
  }) AS numbers,
  format(
    'Tools of at least {} tokens were described in each of {} calls, and none was used.', min(tool_schema_tokens),
    count(*)
  ) AS sentence
FROM waste_paid_calls SEMI JOIN idle USING (session)
WHERE is_counted AND is_work AND is_ok
GROUP BY session
