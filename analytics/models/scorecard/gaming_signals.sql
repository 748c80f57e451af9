-- Signs that something may be gamed: to be looked at, never a verdict, and about nobody alone. One row per shown group, window and signal.
-- @team_id: Team, or (other): teams with too few builders, put together
-- @window_start: First day of the window, UTC
-- @signal: split_prs, tiny_tickets, parked_tag, spend_without_outcome, prs_without_outcome, end_burst, unreviewed, instant_approval, clockwork
-- @cases: Of how many pull requests, tickets, sessions or calls it tells
-- @value: How strong it is, as a factor or a share; what of, the evidence says
-- @usd: What the calls in question cost, USD; NULL where it is about no calls
-- @evidence: The same in words
WITH shown AS MATERIALIZED (
  SELECT team_id, window_start, window_end, shown_as FROM scorecard_groups WHERE shown_as IS NOT NULL
),
merged AS MATERIALIZED (
  SELECT shown_as, window_start, window_end, unit_id, arrived_at, is_reviewed, epoch(merged_at - created_at) / 60 AS minutes_open,
    count(*) OVER (PARTITION BY unit_id) AS unit_prs
  FROM unit_prs JOIN shown USING (team_id)
  WHERE arrived_at >= window_start AND arrived_at < window_end
),
delivery AS MATERIALIZED (
  SELECT
    shown_as, window_start,
    count(*) AS prs,
    count(DISTINCT unit_id) AS units,
    count(*) FILTER (WHERE unit_prs >= 4) AS split_prs,
    count(*) FILTER (WHERE NOT is_reviewed) AS unreviewed_prs,
    count(*) FILTER (WHERE is_reviewed AND minutes_open < 10) AS instant_prs,
    count(*) FILTER (WHERE arrived_at >= window_end - INTERVAL 3 DAY) AS late_prs,
    epoch(any_value(window_end) - window_start) / 86400 AS days
  FROM merged
  GROUP BY shown_as, window_start
),
spent AS MATERIALIZED (
  SELECT shown_as, window_start, sum(spend_usd) AS spend_usd, sum(calls) AS calls
  FROM team_spend JOIN shown USING (team_id, window_start)
  GROUP BY shown_as, window_start
),
courses AS MATERIALIZED (
  SELECT
    shown_as, window_start, nd, prs, calls, spend_usd,
    lag(nd) OVER windows AS nd_before, lag(prs) OVER windows AS prs_before, lag(spend_usd) OVER windows AS spend_before
  FROM (SELECT team_id AS shown_as, window_start, nd FROM normalized_deployments WHERE state = 'settled')
    LEFT JOIN delivery USING (shown_as, window_start) LEFT JOIN spent USING (shown_as, window_start)
  WINDOW windows AS (PARTITION BY shown_as ORDER BY window_start)
),
people AS (
  SELECT source_user AS name, team_id FROM identities JOIN users USING (user_id)
  UNION
  SELECT user_id, team_id FROM users
),
tiny AS (
  SELECT shown_as, window_start, count(DISTINCT ticket_id) AS tickets
  FROM tickets JOIN people ON name = creator JOIN shown USING (team_id)
    ANTI JOIN pr_ticket_weights USING (ticket_id)
  WHERE closer = creator AND done_at < created_at + INTERVAL 10 MINUTE AND done_at >= window_start AND done_at < window_end
  GROUP BY shown_as, window_start
),
ticket_spend AS (
  SELECT shown_as, window_start, ticket_id, sum(ticket_cost_usd) AS usd, count(*) AS calls
  FROM call_tickets JOIN shown USING (team_id)
  WHERE started_at >= window_start AND started_at < window_end
  GROUP BY shown_as, window_start, ticket_id
),
parked AS (
  SELECT shown_as, window_start, max(usd) AS usd, arg_max(ticket_id, usd) AS ticket_id, arg_max(calls, usd) AS calls,
    CAST(max(usd) AS DOUBLE) / CAST(nullif(sum(usd), 0) AS DOUBLE) AS share, median(CAST(usd AS DOUBLE)) AS usual, count(*) AS tickets
  FROM ticket_spend
  GROUP BY shown_as, window_start
),
gaps AS (
  SELECT team_id, session_id, started_at, edits, human_turn, coalesce(contracted_cost_usd, list_cost_usd) AS usd,
    epoch(started_at - lag(started_at) OVER (PARTITION BY team_id, session_id ORDER BY started_at)) AS gap
  FROM calls
  WHERE session_id IS NOT NULL AND len(tickets) = 0 AND purpose IS NULL
),
loops AS (
  SELECT team_id, session_id, min(started_at) AS begun_at, count(*) AS calls, sum(usd) AS usd
  FROM gaps
  GROUP BY team_id, session_id
  HAVING count(*) >= 30 AND sum(edits) = 0 AND count(*) FILTER (WHERE human_turn) <= 1
    AND stddev_samp(gap) < 0.15 * avg(gap)
),
clockwork AS (
  SELECT shown_as, window_start, count(*) AS sessions, sum(calls) AS calls, sum(usd) AS usd
  FROM loops JOIN shown USING (team_id)
  WHERE begun_at >= window_start AND begun_at < window_end
  GROUP BY shown_as, window_start
),
signals AS (
  SELECT shown_as, window_start, 'split_prs' AS signal, split_prs AS cases, split_prs / prs AS value, NULL AS usd,
    format('{} of {} pull requests are parts of units with four or more of them; together they are {} units', split_prs, prs, units) AS evidence
  FROM delivery WHERE split_prs >= 12 AND split_prs >= 0.2 * prs
  UNION ALL
  SELECT shown_as, window_start, 'unreviewed', unreviewed_prs, unreviewed_prs / prs, NULL,
    format('{} of {} pull requests were merged without an approval by somebody else', unreviewed_prs, prs)
  FROM delivery WHERE unreviewed_prs >= 10 AND unreviewed_prs >= 0.3 * prs
  UNION ALL
  SELECT shown_as, window_start, 'instant_approval', instant_prs, instant_prs / prs, NULL,
    format('{} of {} pull requests were approved and merged within ten minutes of being opened', instant_prs, prs)
  FROM delivery WHERE instant_prs >= 10 AND instant_prs >= 0.2 * prs
  UNION ALL
  SELECT shown_as, window_start, 'end_burst', late_prs, late_prs / prs, NULL,
    format('{} of {} pull requests arrived in the last three days', late_prs, prs)
  FROM delivery WHERE late_prs >= 12 AND late_prs >= 3 * prs * 3 / days
  UNION ALL
  SELECT shown_as, window_start, 'prs_without_outcome', prs, prs / prs_before, NULL,
    format('pull requests went from {} to {}, normalized deployments from {:.1f} to {:.1f}', prs_before, prs, nd_before, nd)
  FROM courses WHERE prs >= 1.5 * prs_before AND prs_before >= 10 AND nd <= 1.1 * nd_before
  UNION ALL
  SELECT shown_as, window_start, 'spend_without_outcome', calls, CAST(spend_usd AS DOUBLE) / CAST(spend_before AS DOUBLE), spend_usd,
    format('spend went from {:.2f} to {:.2f} USD, normalized deployments from {:.1f} to {:.1f}',
      CAST(spend_before AS DOUBLE), CAST(spend_usd AS DOUBLE), nd_before, nd)
  FROM courses WHERE spend_usd >= 2 * spend_before AND spend_before > 0 AND nd <= 1.1 * nd_before
  UNION ALL
  SELECT shown_as, window_start, 'tiny_tickets', tickets, tickets, NULL,
    format('{} tickets were opened and closed by the same person within ten minutes, without a pull request', tickets)
  FROM tiny WHERE tickets >= 10
  UNION ALL
  SELECT shown_as, window_start, 'parked_tag', calls, share, usd,
    format('{} carries {:.0f} % of what is for tickets, {:.2f} USD in {} calls; half of the {} tickets cost at most {:.2f}',
      ticket_id, 100 * share, CAST(usd AS DOUBLE), calls, tickets, usual)
  FROM parked WHERE tickets >= 5 AND share >= 0.25 AND usd >= 10 * usual
  UNION ALL
  SELECT shown_as, window_start, 'clockwork', sessions, calls / sessions, usd,
    format('{} sessions without a ticket made {} calls at even intervals, and edited nothing', sessions, calls)
  FROM clockwork WHERE sessions >= 3
)
SELECT shown_as AS team_id, window_start, signal, CAST(cases AS BIGINT) AS cases, CAST(value AS DOUBLE) AS value,
  CAST(usd AS DECIMAL(38,9)) AS usd, evidence
FROM signals
