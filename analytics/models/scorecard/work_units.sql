-- Units of work that arrived, and what they count. One row per unit.
-- @unit_id: Unit of work, called after the first of its pull requests
-- @team_id: Team that wrote most of its lines; NULL where authors are not known as users
-- @teams: All teams that wrote it, with their parts of its lines
-- @pr_ids: Pull requests that it is made of
-- @tickets: Tickets that it is for
-- @first_arrived_at: When the first of its pull requests arrived, UTC
-- @unit_at: Date of the unit, UTC: when half of its lines had arrived
-- @open_hours: Hours that its pull requests were open, the longest
-- @lines: Lines added and removed by its pull requests
-- @repos: Repositories that they are in, with lines of each
-- @unsized_prs: Pull requests whose lines nobody tells; they are not in lines
-- @median_lines: The yardstick, of the repository that most of its lines are in
-- @size: v: log2(1 + lines / median), at most 2
-- @survival: Part of its lines that was not taken back until it is settled
-- @survival_30: Part of its lines that was not taken back within 30 days; NULL before they are over
-- @has_failed: Whether a deployment of it failed until it is settled
-- @was_reopened: Whether a ticket of it was opened again until it is settled
-- @needed_hotfix: Whether a hotfix to its tickets, or to its files, arrived until it is settled
-- @quality: q: survival, halved where a deployment failed, halved where a ticket was reopened or a hotfix needed
-- @is_reviewed: Whether each of its pull requests was approved by somebody else
-- @independence: ρ: 1 when it is reviewed, else a half, and nothing when it is tiny
-- @normalized_deployments: v · q · ρ
-- @settles_at: From when it counts, UTC
-- @state: settled, or pending: it does not count yet
-- @is_frozen: Whether its yardstick was written down before it was measured
WITH parts AS MATERIALIZED (
  FROM unit_prs
),
usual AS MATERIALIZED (
  FROM yardsticks
),
sizes AS MATERIALIZED (
  FROM unit_sizes
),
moments AS MATERIALIZED (
  SELECT
    unit_id, min(arrived_at) AS first_arrived_at, max(epoch(merged_at - created_at)) / 3600 AS open_hours,
    bool_and(is_reviewed) AS is_reviewed, list(pr_id ORDER BY pr_id) AS pr_ids,
    list_sort(list_distinct(flatten(list(roots)))) AS tickets, count(*) FILTER (WHERE lines IS NULL) AS unsized_prs
  FROM parts
  GROUP BY unit_id
),
units AS MATERIALIZED (
  SELECT
    moments.*, unit_at, unit_lines AS lines, unit_at + INTERVAL 1 DAY * settle_days AS settles_at, settle_days, tiny_lines,
    first_median_lines, units_min
  FROM moments JOIN (SELECT DISTINCT unit_id, unit_at, unit_lines FROM sizes) AS sized USING (unit_id)
    JOIN scorecard_terms ON unit_at >= applies_from AND unit_at < applies_to
),
measured AS (
  SELECT
    unit_id,
    list({repo: repo, lines: lines} ORDER BY repo) AS repos,
    max({lines: lines, repo: repo, median_lines: median_lines}).median_lines AS median_lines,
    least(2, log2(1 + sum(lines / median_lines ORDER BY repo))) AS size,
    bool_and(is_frozen) AS is_frozen
  FROM (
    SELECT
      unit_id, sizes.repo, sizes.lines, coalesce(own.median_lines, everywhere.median_lines, first_median_lines) AS median_lines,
      coalesce(everywhere.is_frozen, true) AS is_frozen
    FROM sizes JOIN units USING (unit_id)
      LEFT JOIN usual AS own
        ON own.repo = sizes.repo AND own.quarter = date_trunc('quarter', sizes.unit_at) AND own.units >= units_min
      LEFT JOIN (FROM usual WHERE repo IS NULL) AS everywhere
        ON everywhere.quarter = date_trunc('quarter', sizes.unit_at)
  )
  GROUP BY unit_id
),
-- What arrives after the unit's date has as much time to come back.
troubles AS (
  SELECT
    unit_id,
    bool_or(failed_at <= greatest(settles_at, arrived_at + INTERVAL 1 DAY * settle_days)) AS has_failed,
    sum(parts.lines * reverted_share)
      FILTER (WHERE reverted_at <= greatest(settles_at, arrived_at + INTERVAL 1 DAY * settle_days)) AS settled_lines,
    sum(parts.lines * reverted_share) FILTER (WHERE reverted_at <= greatest(unit_at, arrived_at) + INTERVAL 30 DAY) AS lines_30
  FROM parts JOIN units USING (unit_id)
  GROUP BY unit_id
),
wrote AS (
  SELECT
    unit_id,
    list({team_id: team_id, part: part} ORDER BY part DESC, prs DESC, team_id) AS teams
  FROM (
    SELECT
      unit_id, team_id, count(*) AS prs,
      coalesce(coalesce(sum(parts.lines), 0) / nullif(any_value(units.lines), 0), count(*) / len(any_value(pr_ids))) AS part
    FROM parts JOIN units USING (unit_id)
    GROUP BY unit_id, team_id
  )
  GROUP BY unit_id
),
statuses AS MATERIALIZED (
  SELECT coalesce(names.ticket_id, history.ticket_id) AS ticket_id, changed_at, history.status_category
  FROM ticket_statuses AS history LEFT JOIN ticket_names AS names ON names.name = history.ticket_id
  WHERE history.status_category IS NOT NULL
),
reopenings AS (
  SELECT ticket_id, changed_at AS reopened_at
  FROM statuses
  QUALIFY status_category <> 'done'
    AND lag(status_category) OVER (PARTITION BY ticket_id ORDER BY changed_at) = 'done'
  UNION ALL
  -- Nobody tells when: it is taken to be within the time that counts.
  SELECT ticket_id, NULL FROM tickets ANTI JOIN statuses USING (ticket_id) WHERE reopened_count > 0
),
unit_tickets AS (
  SELECT unit_id, unnest(tickets) AS ticket_id FROM units
  UNION
  SELECT unit_id, weights.ticket_id FROM parts JOIN pr_ticket_weights AS weights USING (pr_id)
),
reopened AS (
  SELECT DISTINCT unit_id
  FROM unit_tickets JOIN reopenings USING (ticket_id) JOIN units USING (unit_id) CROSS JOIN as_of
  WHERE reopened_at IS NULL OR (reopened_at > first_arrived_at AND reopened_at <= least(settles_at, as_of))
),
hotfixed AS (
  SELECT DISTINCT was.unit_id
  FROM parts AS fix JOIN parts AS was ON was.repo = fix.repo AND was.pr_id <> fix.pr_id
    JOIN units ON units.unit_id = was.unit_id
  WHERE fix.is_hotfix AND NOT was.is_hotfix
    AND fix.arrived_at > was.arrived_at AND fix.arrived_at <= settles_at
    AND (
      list_has_any(fix.roots, was.roots)
      OR len(list_intersect(fix.files, was.files))
        >= 0.5 * greatest(1, least(len(list_distinct(fix.files)), len(list_distinct(was.files))))
    )
),
factors AS (
  SELECT
    unit_id, teams[1].team_id AS team_id, teams, pr_ids, tickets, first_arrived_at, unit_at, open_hours, units.lines, repos, unsized_prs,
    median_lines, size,
    1 - least(1, coalesce(settled_lines / nullif(units.lines, 0), 0)) AS survival,
    CASE WHEN unit_at + INTERVAL 30 DAY <= as_of THEN 1 - least(1, coalesce(lines_30 / nullif(units.lines, 0), 0)) END
      AS survival_30,
    coalesce(has_failed, false) AS has_failed,
    reopened.unit_id IS NOT NULL AS was_reopened,
    hotfixed.unit_id IS NOT NULL AS needed_hotfix,
    is_reviewed,
    CASE WHEN is_reviewed THEN 1.0 WHEN units.lines <= tiny_lines THEN 0.0 ELSE 0.5 END AS independence,
    settles_at,
    CASE WHEN settles_at <= as_of THEN 'settled' ELSE 'pending' END AS state,
    is_frozen
  FROM units CROSS JOIN as_of
    LEFT JOIN measured USING (unit_id)
    LEFT JOIN troubles USING (unit_id)
    LEFT JOIN wrote USING (unit_id)
    LEFT JOIN reopened USING (unit_id)
    LEFT JOIN hotfixed USING (unit_id)
)
SELECT
  * EXCLUDE (settles_at, state, is_frozen),
  survival * CASE WHEN has_failed THEN 0.5 ELSE 1.0 END * CASE WHEN was_reopened OR needed_hotfix THEN 0.5 ELSE 1.0 END
    AS quality,
  size * quality * independence AS normalized_deployments,
  settles_at, state, is_frozen
FROM factors
