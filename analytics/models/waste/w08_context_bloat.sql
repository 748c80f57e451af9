-- W08: far more input than such calls have, for hardly an answer and no edit. One row per session.
-- @kind: Always NULL
-- @group_key: Session; without one, the call
-- @ticket_id: Always NULL
-- @calls: The calls, with what was paid for input beyond three times the usual
-- @numbers: Largest input, the usual (75th percentile for model and client, over how many calls), how many
-- @sentence: The same in words
-- What was really paid counts: cached input is cheap. The first call of a session, or one without a session, may be
-- there to load a document: it is left out unless it has a history, or, where that is not known, the session went on so.
WITH usual AS (
  SELECT model, client, count(*) AS n, quantile_cont(input_tokens, 0.75) AS p75
  FROM waste_calls
  WHERE is_counted AND input_tokens IS NOT NULL
  GROUP BY model, client
),
work AS (
  SELECT *, count(*) OVER (PARTITION BY session) AS of_session FROM waste_paid_calls, waste_terms
  WHERE is_counted AND is_work AND is_ok AND input_tokens > settings.w08_tokens
    AND output_tokens < settings.w08_output * input_tokens AND edits = 0
    AND coalesce(purpose NOT IN ('research', 'batch'), true)
),
firsts AS (
  SELECT arg_min(call_id, (started_at, call_id)) AS call_id
  FROM waste_calls SEMI JOIN work USING (session)
  WHERE is_counted AND is_work
  GROUP BY session
),
bloated AS (
  SELECT
    work.call_id, started_at, coalesce(session, work.call_id) AS session, input_tokens, n, p75,
    ceil(settings.w08_times * p75) AS allowed_tokens,
    (input_tokens - CAST(allowed_tokens AS HUGEINT))
      * (input_nano + cache_read_nano + cache_write_nano) // nullif(input_tokens, 0) AS nano
  FROM work
    JOIN usual ON usual.model IS NOT DISTINCT FROM work.model AND usual.client IS NOT DISTINCT FROM work.client
    LEFT JOIN firsts ON firsts.call_id = work.call_id
  WHERE n >= settings.w08_baseline AND input_tokens > settings.w08_times * p75
    AND CASE
      WHEN session IS NOT NULL AND firsts.call_id IS NULL THEN true
      WHEN message_count IS NOT NULL THEN message_count > 2
      ELSE session IS NOT NULL AND of_session > 1
    END
)
SELECT
  NULL AS kind,
  session AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({
    largest_input_tokens: max(input_tokens), usual_tokens: max(p75), usual_over_calls: max(n),
    allowed_tokens: CAST(max(allowed_tokens) AS BIGINT), bloated: count(*)
  }) AS numbers,
  format(
    '{} calls had up to {} input tokens, where three of four such calls have at most {}, and answered next to nothing.',
    count(*), max(input_tokens), CAST(round(max(p75)) AS BIGINT)
  ) AS sentence
FROM bloated
GROUP BY session
