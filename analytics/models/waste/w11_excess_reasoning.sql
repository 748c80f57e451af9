-- W11: a model reasoned far longer than usual, and for hardly an answer. One row per team, model and UTC day.
-- @kind: Always NULL
-- @group_key: Team, model and day
-- @ticket_id: Always NULL
-- @calls: The calls, with what was paid for reasoning beyond four times the usual
-- @numbers: Most reasoning tokens, the usual (median for model and client, over how many calls), how many
-- @sentence: The same in words
WITH usual AS (
  SELECT model, client, count(*) AS n, median(reasoning_output_tokens) AS median_tokens
  FROM waste_calls
  WHERE is_counted AND reasoning_output_tokens > 0
  GROUP BY model, client
),
excess AS (
  SELECT
    call_id, started_at, on_day, team_id, calls.model, reasoning_output_tokens, n, median_tokens,
    (reasoning_output_tokens - CAST(ceil(settings.w11_times * median_tokens) AS HUGEINT)) * output_nano
      // nullif(output_tokens, 0) AS nano
  FROM waste_paid_calls AS calls
    JOIN usual ON usual.model IS NOT DISTINCT FROM calls.model AND usual.client IS NOT DISTINCT FROM calls.client
    CROSS JOIN waste_terms
  WHERE is_counted AND n >= settings.w11_baseline
    AND reasoning_output_tokens >= settings.w11_tokens
    AND reasoning_output_tokens > settings.w11_times * median_tokens
    AND reasoning_output_tokens >= settings.w11_part * output_tokens
    AND tool_calls = 0
    AND coalesce(NOT list_contains(settings.w11_purposes, purpose), true)
)
SELECT
  NULL AS kind,
  concat_ws('|', coalesce(team_id, ''), coalesce(model, ''), on_day) AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({
    most_reasoning_tokens: max(reasoning_output_tokens), usual_tokens: max(median_tokens), usual_over_calls: max(n),
    calls: count(*)
  }) AS numbers,
  format(
    '{} calls reasoned for up to {} tokens, where half of such calls need at most {}, and answered next to nothing.',
    count(*), max(reasoning_output_tokens), CAST(round(max(median_tokens)) AS BIGINT)
  ) AS sentence
FROM excess
GROUP BY team_id, model, on_day
