-- W09: descriptions of tools were sent with each call of a session, and none was ever used. One row per session.
-- @kind: Always NULL
-- @group_key: Session
-- @ticket_id: Always NULL
-- @calls: The calls, with what the descriptions cost: cached, where that much was read from the cache
-- @numbers: Tokens of the descriptions, tools, how many calls
-- @sentence: The same in words
-- A session that may still be running waits.
WITH idle AS (
  SELECT session
  FROM waste_calls, waste_terms
  WHERE is_counted AND is_work AND is_ok AND session IS NOT NULL
  GROUP BY session
  HAVING count(*) >= any_value(settings.w09_calls)
    AND count(tool_calls) = count(*) AND sum(tool_calls) = 0
    AND count(tool_schema_tokens) = count(*) AND min(tool_schema_tokens) >= any_value(settings.w09_tokens)
    AND max(started_at) < any_value(as_of) - to_minutes(CAST(any_value(settings.w09_minutes) AS BIGINT))
)
SELECT
  NULL AS kind,
  session AS group_key,
  NULL AS ticket_id,
  list({
    call_id: call_id,
    nano: CAST(tool_schema_tokens AS HUGEINT)
      * CASE WHEN cache_read_tokens >= tool_schema_tokens THEN cache_read_rate ELSE input_rate END // 1000000
      * cost_nano // nullif(list_nano, 0)
  } ORDER BY started_at, call_id) AS calls,
  to_json({
    tool_schema_tokens: min(tool_schema_tokens), tool_count: max(tool_count), calls: count(*)
  }) AS numbers,
  format(
    'Tools of at least {} tokens were described in each of {} calls, and none was used.', min(tool_schema_tokens), count(*)
  ) AS sentence
FROM waste_calls SEMI JOIN idle USING (session) LEFT JOIN waste_rates USING (price_id, provider, model)
WHERE is_counted AND is_work AND is_ok
GROUP BY session
