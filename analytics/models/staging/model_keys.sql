-- Names of models in calls and on invoices, and the key under which those of one model meet. One row per provider and name.
-- @provider: Provider
-- @name: Model, as the price book, a call or an item of an invoice names it
-- @model_key: Digits of the name in their order, and its letters in that of the alphabet, without path, vendor, region, date and version: catalogues turn words around (Claude4.6Opus, claude-opus-4-6)
-- @is_metered: Calls have this key
WITH names AS (
  SELECT provider, name, true AS in_calls FROM metered_models
  UNION ALL
  SELECT provider, model, false FROM invoice_lines WHERE model IS NOT NULL
),
bare AS (
  SELECT
    provider,
    name,
    bool_or(in_calls) AS in_calls,
    regexp_replace(
      regexp_replace(regexp_replace(lower(name), '^.*/', ''), '^([a-z-]+\.)+([a-z])', '\2'),
      '([-@](20\d\d-?\d\d-?\d\d|\d\d-20\d\d|\d\d-\d\d|00\d|latest|default|v\d+(:\d+)?))+$', ''
    ) AS short
  FROM names
  GROUP BY ALL
),
keys AS (
  SELECT
    *,
    regexp_replace(array_to_string(regexp_extract_all(short, '\d+'), '.'), '(\.0)+$', '')
      || ' ' || array_to_string(list_sort(regexp_extract_all(short, '[a-z]')), '') AS model_key
  FROM bare
)
SELECT provider, name, model_key, bool_or(in_calls) OVER (PARTITION BY provider, model_key) AS is_metered
FROM keys
