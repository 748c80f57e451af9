-- W16: work whose pull requests were reverted within a month of the merge, and did not land again. One row per ticket.
-- @kind: Always NULL
-- @group_key: Ticket
-- @ticket_id: Ticket by its present key
-- @calls: The calls, with this ticket's share of their cost, by the lines that were reverted
-- @numbers: The pull requests, what reverted them and how that is known, reverted lines and all merged ones
-- @sentence: The same in words
-- Pull requests that revert, or land again, are not work of their own. Where a revert was reverted, or the ticket had
-- another pull request merged within a day of it, the work landed again, whatever words say. What may
-- have landed again by its files is not held against anybody.
WITH merged AS (
  SELECT
    ticket_id, prs.pr_id, merged_at, additions + deletions AS lines, reverts.reverted_at, reverted_by, method,
    CASE
      WHEN reverts.reverted_at <= merged_at + to_days(CAST(settings.w16_days AS INTEGER)) AND landed_again_at IS NULL
        AND pr_id NOT IN (SELECT pr_id FROM pr_revert_events WHERE method = 'files' AND lands)
      THEN reverts.share ELSE 0
    END AS part
  FROM pr_ticket_weights
    JOIN (SELECT * EXCLUDE (reverted_at, reverted_by) FROM pull_requests) AS prs USING (pr_id)
    ANTI JOIN (
      SELECT reverted_by AS pr_id FROM revert_targets UNION SELECT reverted_by FROM pull_requests
    ) AS undoing USING (pr_id)
    LEFT JOIN pr_reverts AS reverts USING (pr_id)
    CROSS JOIN waste_terms
  WHERE merged_at IS NOT NULL
),
standing AS (
  SELECT
    * REPLACE (CASE
      WHEN reverted_by IN (SELECT pr_id FROM pull_requests WHERE reverted_at IS NOT NULL)
        OR list_bool_or([m > reverted_at AND m <= reverted_at + INTERVAL 1 DAY FOR m IN merges]) THEN 0 ELSE part
    END AS part)
  FROM (SELECT *, list(merged_at) OVER (PARTITION BY ticket_id) AS merges FROM merged)
),
parts AS (
  -- In millionths. Where the size of a pull request is not known, all count alike.
  SELECT
    ticket_id,
    CAST(floor(CASE
      WHEN count(lines) = count(*) AND sum(lines) > 0 THEN sum(part * lines) * 1000000 / nullif(sum(lines), 0)
      ELSE sum(part) * 1000000 / count(*)
    END) AS HUGEINT) AS millionths,
    CAST(sum(part * lines) AS BIGINT) AS reverted_lines,
    CAST(sum(lines) AS BIGINT) AS merged_lines,
    list({pr_id: pr_id, reverted_by: reverted_by, reverted_at: reverted_at, method: method} ORDER BY pr_id)
      FILTER (part > 0) AS reverts
  FROM standing
  GROUP BY ticket_id
  HAVING sum(part) > 0
)
SELECT
  NULL AS kind,
  ticket_id AS group_key,
  ticket_id,
  list({call_id: call_id, nano: nano * millionths // 1000000} ORDER BY started_at, call_id) AS calls,
  to_json({
    reverts: any_value(reverts), reverted_lines: any_value(reverted_lines), merged_lines: any_value(merged_lines)
  }) AS numbers,
  coalesce(
    format(
      '{} of {} lines that were merged for {} were reverted, and have not landed again.',
      any_value(reverted_lines), any_value(merged_lines), ticket_id
    ),
    format('What was merged for {} was reverted, all or in part, and has not landed again.', ticket_id)
  ) AS sentence
FROM waste_ticket_calls JOIN parts USING (ticket_id)
GROUP BY ticket_id
