-- W18: a ticket was typed in by somebody who has nothing to do with it, off its branch. One row per ticket and caller.
-- @kind: Always disputed: the spend is real, and somebody else's; nothing is recoverable
-- @group_key: Ticket, and a mark of the caller, which only the installation's key makes
-- @ticket_id: Ticket by its present key
-- @calls: The calls, with this ticket's share of their cost
-- @numbers: How many calls, how many without a branch of the ticket, the sum
-- @sentence: The same in words
-- Who helps on the ticket's branch, under any key that it has had, passes. Where it is not known who is who, on either
-- side, nothing is said. Who the caller is stands nowhere: the API asks the calls (finding_callers).
WITH typed AS (
  SELECT
    ticket_id, user_id, call_id, started_at, nano, branch,
    regexp_extract(ticket_id, '^.+[-#]([0-9]+)$', 1) AS number,
    CASE
      WHEN branch IS NULL THEN true
      WHEN list_bool_or([
        regexp_matches(branch, concat('(?i)(^|[^a-z0-9])', regexp_escape(n), '($|[^0-9])')) FOR n IN names
      ]) THEN false
      WHEN contains(ticket_id, '#') THEN regexp_matches(branch, '[0-9]')
        AND NOT regexp_matches(branch, concat('(^|[^0-9])', number, '($|[^0-9])'))
      ELSE regexp_matches(branch, '(^|[/_])[A-Za-z][A-Za-z0-9]*-[0-9]+|(^|[^A-Za-z0-9])[A-Z][A-Z0-9_]*-[0-9]+')
    END AS is_elsewhere
  FROM waste_ticket_calls
    JOIN (SELECT ticket_id, list(name) AS names FROM ticket_names GROUP BY ticket_id) AS called USING (ticket_id)
  WHERE ticket_id IS NOT NULL AND user_id IS NOT NULL AND ticket_source IN ('header', 'path', 'metadata')
),
people AS (
  SELECT
    ticket_id,
    bool_and(identities.user_id IS NOT NULL) AS all_known,
    list(DISTINCT identities.user_id) AS users
  FROM (SELECT ticket_id, unnest(people) AS person FROM waste_tickets) AS of_ticket
    LEFT JOIN identities ON source_user = person
  GROUP BY ticket_id
),
callers AS (
  SELECT
    ticket_id, user_id,
    list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
    count(*) AS n,
    count(*) FILTER (is_elsewhere) AS elsewhere,
    sum(nano) AS sum_nano
  FROM typed
  GROUP BY ticket_id, user_id
)
SELECT
  'disputed' AS kind,
  concat_ws('|', ticket_id, left(sha256(getvariable('caller_key') || user_id), 12)) AS group_key,
  ticket_id,
  calls,
  to_json({
    calls: n, elsewhere: elsewhere, spent_usd: CAST(CAST(sum_nano AS BIGINT) * 0.000000001 AS DECIMAL(18,9))
  }) AS numbers,
  format(
    '{} calls name {} by hand, {} of them without a branch of it, by somebody who is none of its people.', n, ticket_id,
    elsewhere
  ) AS sentence
FROM callers JOIN people USING (ticket_id) CROSS JOIN waste_terms
WHERE all_known AND user_id IN (SELECT user_id FROM identities) AND NOT list_contains(users, user_id)
  AND n >= settings.w18_calls AND elsewhere >= settings.w18_part * n
  AND sum_nano >= CAST(settings.w18_usd AS DECIMAL(28,9)) * 1000000000
