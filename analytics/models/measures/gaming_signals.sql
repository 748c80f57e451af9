-- Signs that something may be gamed, worked out now: models/scorecard/gaming_signals.sql says what each column is. One row per shown group, window and signal.
WITH windows AS MATERIALIZED (
  SELECT DISTINCT window_start, COLUMNS('^signal_')
  FROM scorecard_groups JOIN scorecard_terms ON window_start >= applies_from AND window_start < applies_to
),
shown AS MATERIALIZED (
  SELECT team_id, window_start, window_end, shown_as, COLUMNS('^signal_')
  FROM scorecard_groups JOIN windows USING (window_start)
  WHERE shown_as IS NOT NULL
),
people AS MATERIALIZED (
  SELECT lower(source_user) AS name, team_id FROM identities JOIN users USING (user_id)
  UNION
  SELECT lower(user_id), team_id FROM users
),
merged AS (
  SELECT
    shown.*, unit_id, lines, arrived_at, is_reviewed, epoch(merged_at - created_at) / 60 AS minutes_open,
    count(*) OVER (PARTITION BY unit_id) AS parts
  FROM unit_prs JOIN shown USING (team_id)
  WHERE arrived_at >= window_start AND arrived_at < window_end
),
delivery AS MATERIALIZED (
  SELECT
    shown_as, window_start,
    count(*) AS prs,
    count(DISTINCT unit_id) AS units,
    coalesce(sum(lines), 0) AS lines,
    count(*) FILTER (WHERE parts >= signal_parts) AS split_prs,
    count(*) FILTER (WHERE NOT is_reviewed) AS unreviewed_prs,
    count(*) FILTER (WHERE is_reviewed AND minutes_open < signal_minutes) AS instant_prs,
    count(*) FILTER (WHERE arrived_at >= window_end - INTERVAL 1 DAY * signal_burst_days) AS late_prs,
    epoch(any_value(window_end) - window_start) / 86400 AS days
  FROM merged
  GROUP BY shown_as, window_start
),
spent AS (
  SELECT shown_as, window_start, sum(spend_usd) AS spend_usd, sum(calls) AS calls
  FROM team_spend JOIN shown USING (team_id, window_start)
  GROUP BY shown_as, window_start
),
courses AS MATERIALIZED (
  SELECT
    shown_as, window_start, nd, prs, lines, calls, spend_usd,
    lag(nd) OVER earlier AS nd_before, lag(prs) OVER earlier AS prs_before, lag(lines) OVER earlier AS lines_before,
    lag(spend_usd) OVER earlier AS spend_before
  FROM (
    -- What the scorecard keeps to itself, as it is of too few units, no sign tells either.
    SELECT team_id AS shown_as, window_start, CASE WHEN units >= units_min THEN nd END AS nd
    FROM normalized_deployments JOIN scorecard_terms ON window_start >= applies_from AND window_start < applies_to
    WHERE state = 'settled'
  ) AS delivered
    LEFT JOIN delivery USING (shown_as, window_start) LEFT JOIN spent USING (shown_as, window_start)
  WINDOW earlier AS (PARTITION BY shown_as ORDER BY window_start)
),
tiny AS (
  SELECT shown_as, window_start, count(DISTINCT ticket_id) AS tickets
  FROM tickets JOIN people ON name = lower(creator) JOIN shown USING (team_id)
    ANTI JOIN pr_ticket_weights USING (ticket_id)
  WHERE closer = creator AND done_at < created_at + INTERVAL 1 MINUTE * signal_minutes
    AND done_at >= window_start AND done_at < window_end
  GROUP BY shown_as, window_start
),
-- Whose a project is: of the team that most of its tickets are by.
projects AS (
  SELECT project, mode(team_id ORDER BY team_id) AS team_id
  FROM tickets JOIN people ON name = lower(coalesce(assignee, creator))
  GROUP BY project
),
ticket_spend AS (
  SELECT shown_as, window_start, ticket_id, sum(ticket_cost_usd) AS usd, count(*) AS calls, count(DISTINCT task_id) AS tasks
  FROM call_tickets JOIN shown USING (team_id)
  WHERE started_at >= window_start AND started_at < window_end
  GROUP BY shown_as, window_start, ticket_id
),
most AS (
  SELECT
    shown_as, window_start, max({usd: usd, ticket_id: ticket_id, calls: calls, tasks: tasks}) AS top, sum(usd) AS total,
    median(CAST(usd AS DOUBLE)) AS usual, count(*) AS tickets
  FROM ticket_spend
  GROUP BY shown_as, window_start
),
parked AS (
  SELECT
    most.*, CAST(top.usd AS DOUBLE) / nullif(CAST(total AS DOUBLE), 0) AS share,
    coalesce(owners.shown_as, projects.team_id) <> most.shown_as AS is_foreign
  FROM most
    LEFT JOIN tickets ON tickets.ticket_id = top.ticket_id
    LEFT JOIN projects USING (project)
    LEFT JOIN scorecard_groups AS owners ON owners.team_id = projects.team_id AND owners.window_start = most.window_start
),
gaps AS (
  SELECT team_id, session_id, started_at, edits, human_turn, coalesce(contracted_cost_usd, list_cost_usd) AS usd,
    epoch(started_at - lag(started_at) OVER (PARTITION BY team_id, session_id ORDER BY started_at, call_id)) AS gap
  FROM calls
  WHERE session_id IS NOT NULL AND len(tickets) = 0 AND purpose IS NULL
),
loops AS (
  SELECT team_id, min(started_at) AS begun_at, count(*) AS calls, sum(usd) AS usd, stddev_samp(gap) / nullif(avg(gap), 0) AS spread
  FROM gaps
  GROUP BY team_id, session_id
  HAVING sum(edits) = 0 AND count(*) FILTER (WHERE human_turn) <= 1
),
clockwork AS (
  SELECT shown_as, window_start, count(*) AS sessions, sum(calls) AS calls, sum(usd) AS usd
  FROM loops JOIN shown USING (team_id)
  WHERE begun_at >= window_start AND begun_at < window_end AND calls >= signal_calls AND spread < signal_evenness
  GROUP BY shown_as, window_start
),
signals AS (
  SELECT shown_as, window_start, 'split_prs' AS signal, split_prs AS cases, split_prs / prs AS value, NULL AS usd,
    format('{} of {} pull requests are parts of units with {} or more of them; all together are {} units',
      split_prs, prs, signal_parts, units) AS evidence
  FROM delivery JOIN windows USING (window_start)
  WHERE split_prs >= signal_min AND split_prs >= signal_share * prs
  UNION ALL
  SELECT shown_as, window_start, 'smaller_prs', prs, prs / prs_before, NULL,
    format('pull requests went from {} to {}, their lines from {} to {}', prs_before, prs, lines_before, lines)
  FROM courses JOIN windows USING (window_start)
  WHERE prs >= signal_growth * prs_before AND prs_before >= signal_min AND lines <= signal_flat * lines_before
  UNION ALL
  SELECT shown_as, window_start, 'unreviewed', unreviewed_prs, unreviewed_prs / prs, NULL,
    format('{} of {} pull requests were merged without an approval by somebody else', unreviewed_prs, prs)
  FROM delivery JOIN windows USING (window_start)
  WHERE unreviewed_prs >= signal_min AND unreviewed_prs >= signal_share * prs
  UNION ALL
  SELECT shown_as, window_start, 'instant_approval', instant_prs, instant_prs / prs, NULL,
    format('{} of {} pull requests were approved and merged within {} minutes of being opened',
      instant_prs, prs, signal_minutes)
  FROM delivery JOIN windows USING (window_start)
  WHERE instant_prs >= signal_min AND instant_prs >= signal_share * prs
  UNION ALL
  SELECT shown_as, window_start, 'end_burst', late_prs, late_prs / prs, NULL,
    format('{} of {} pull requests arrived in the last {} days', late_prs, prs, signal_burst_days)
  FROM delivery JOIN windows USING (window_start)
  WHERE late_prs >= signal_min AND late_prs >= signal_burst * prs * signal_burst_days / days
  UNION ALL
  SELECT shown_as, window_start, 'prs_without_outcome', prs, prs / prs_before, NULL,
    format('pull requests went from {} to {}, normalized deployments from {:.1f} to {:.1f}', prs_before, prs, nd_before, nd)
  FROM courses JOIN windows USING (window_start)
  WHERE prs >= signal_growth * prs_before AND prs_before >= signal_min AND nd <= signal_flat * nd_before
  UNION ALL
  SELECT shown_as, window_start, 'spend_without_outcome', calls, CAST(spend_usd AS DOUBLE) / CAST(spend_before AS DOUBLE), spend_usd,
    format('spend went from {:.2f} to {:.2f} USD, normalized deployments from {:.1f} to {:.1f}',
      CAST(spend_before AS DOUBLE), CAST(spend_usd AS DOUBLE), nd_before, nd)
  FROM courses JOIN windows USING (window_start)
  WHERE spend_usd >= signal_spend * spend_before AND spend_before > 0 AND nd <= signal_flat * nd_before
  UNION ALL
  SELECT shown_as, window_start, 'tiny_tickets', tickets, tickets, NULL,
    format('{} tickets were opened and closed by the same person within {} minutes, without a pull request',
      tickets, signal_minutes)
  FROM tiny JOIN windows USING (window_start)
  WHERE tickets >= signal_min
  UNION ALL
  SELECT shown_as, window_start, 'parked_tag', top.calls, share, top.usd,
    format('{} carries {:.0f} % of what is for tickets, {:.2f} USD in {} calls of {} tasks; {}half of the {} tickets cost at most {:.2f}',
      top.ticket_id, 100 * share, CAST(top.usd AS DOUBLE), top.calls, top.tasks,
      CASE WHEN is_foreign THEN 'its project is another team''s; ' ELSE '' END, tickets, usual)
  FROM parked JOIN windows USING (window_start)
  WHERE share >= signal_share AND top.tasks >= signal_sessions
    AND (is_foreign OR top.usd >= signal_parked * usual OR (tickets < 5 AND top.tasks >= signal_min))
  UNION ALL
  SELECT shown_as, window_start, 'clockwork', sessions, calls / sessions, usd,
    format('{} sessions without a ticket made {} calls at even intervals, and edited nothing', sessions, calls)
  FROM clockwork JOIN windows USING (window_start)
  WHERE sessions >= signal_sessions
)
SELECT shown_as AS team_id, window_start, signal, CAST(cases AS BIGINT) AS cases, CAST(value AS DOUBLE) AS value,
  CAST(usd AS DECIMAL(38,9)) AS usd, evidence, as_of
FROM signals CROSS JOIN as_of
