-- W02: one request was tried again and again while attempts failed. One row per burst.
-- @kind: backed_off when the pauses grew as retries should: then nothing is recoverable
-- @group_key: Session, request and the burst's first call
-- @ticket_id: Always NULL
-- @calls: All attempts but the one whose answer was kept (without an answer, but the first), with their cost
-- @numbers: Attempts with their status and the pause before them, how many failed, the attempt that was kept
-- @sentence: The same in words
-- What a provider's retry-after asked for is not recorded; pauses that grow, perhaps up to a maximum, are taken for
-- obedience.
WITH attempts AS (
  SELECT
    call_id, started_at, ended_at, status, result, cost_nano, is_counted,
    coalesce(session, request_id) AS session, request_hash, failed, is_ok
  FROM waste_calls SEMI JOIN (SELECT request_hash FROM waste_calls WHERE failed) AS has_failed USING (request_hash)
),
suspects AS (
  SELECT * FROM attempts
  SEMI JOIN (
    SELECT session, request_hash
    FROM attempts, waste_terms
    GROUP BY session, request_hash
    HAVING count(*) >= any_value(settings.w02_attempts) AND count(*) FILTER (failed) >= any_value(settings.w02_failures)
  ) AS enough USING (session, request_hash)
),
windows AS (
  SELECT
    suspects.*, settings.w02_minutes AS minutes,
    count(*) OVER before_it >= settings.w02_attempts
      AND count(*) FILTER (failed) OVER before_it >= settings.w02_failures AS closes
  FROM suspects, waste_terms
  WINDOW before_it AS (
    PARTITION BY session, request_hash ORDER BY started_at
    RANGE BETWEEN to_minutes(CAST(settings.w02_minutes AS BIGINT)) PRECEDING AND CURRENT ROW
  )
),
members AS (
  SELECT *
  FROM windows
  QUALIFY bool_or(closes) OVER (
    PARTITION BY session, request_hash ORDER BY started_at
    RANGE BETWEEN CURRENT ROW AND to_minutes(CAST(minutes AS BIGINT)) FOLLOWING
  )
),
gaps AS (
  SELECT
    *,
    started_at - lag(started_at) OVER steps AS gap,
    greatest(started_at - lag(ended_at) OVER steps, INTERVAL 0 SECONDS) AS pause
  FROM members
  WINDOW steps AS (PARTITION BY session, request_hash ORDER BY started_at, call_id)
),
bursts AS (
  SELECT
    *,
    count(*) FILTER (gap IS NULL OR gap > to_minutes(CAST(minutes AS BIGINT))) OVER (
      PARTITION BY session, request_hash ORDER BY started_at, call_id
    ) AS burst
  FROM gaps
),
judged AS (
  SELECT
    session, request_hash, burst,
    min(started_at) AS first_at,
    max(started_at) AS last_at,
    count(*) AS attempts,
    count(*) FILTER (failed) AS failures,
    arg_min(call_id, (started_at, call_id)) AS first_call_id,
    arg_max(call_id, (started_at, call_id)) FILTER (is_ok AND NOT failed) AS answer_call_id,
    list({call_id: call_id, nano: cost_nano, is_counted: is_counted} ORDER BY started_at, call_id) AS all_calls,
    list({call_id: call_id, status: status, result: result, pause_s: epoch(pause)} ORDER BY started_at, call_id)
      AS told,
    (list(epoch(gap) ORDER BY started_at, call_id))[2:] AS gap_list,
    (list(epoch(pause) ORDER BY started_at, call_id))[2:] AS pause_list
  FROM bursts
  GROUP BY session, request_hash, burst
),
kept AS (
  SELECT
    *,
    coalesce(answer_call_id, first_call_id) AS kept_call_id,
    -- Each is 1.2 to 6 times the one before it, as clients blur them, and 1.6 times on the mean; or it is not much shorter
    -- once they have grown to four times the first.
    list_bool_or([
      list_bool_and([
        p[i] > 0 AND (p[i + 1] BETWEEN 1.2 * p[i] AND 6 * p[i] OR p[i + 1] >= greatest(0.8 * p[i], 4 * p[1]))
        FOR i IN range(1, len(p))
      ]) AND list_max(p) >= least(4, 1.6 ** (len(p) - 1)) * p[1]
      FOR p IN [gap_list, pause_list]
    ]) AS backed_off
  FROM judged
)
SELECT
  CASE WHEN backed_off THEN 'backed_off' END AS kind,
  concat_ws('|', session, request_hash, first_call_id) AS group_key,
  NULL AS ticket_id,
  -- An attempt without a usage was not billed.
  [
    {call_id: c.call_id, nano: CASE WHEN c.is_counted THEN c.nano ELSE 0 END} FOR c IN all_calls
    IF c.call_id <> kept_call_id
  ] AS calls,
  to_json({
    attempts: told, failures: failures, kept_call_id: kept_call_id, is_answered: answer_call_id IS NOT NULL,
    span_s: epoch(last_at) - epoch(first_at)
  }) AS numbers,
  format(
    'One request was tried {} times within {} s, {} of them failed{}.',
    attempts, CAST(round(epoch(last_at) - epoch(first_at)) AS BIGINT), failures,
    CASE WHEN backed_off THEN '; the pauses grew, so it is listed without money' ELSE '' END
  ) AS sentence
FROM kept
