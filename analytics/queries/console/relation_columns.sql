-- Columns of a relation, in their order. One row per column.
SELECT column_name AS name, data_type AS type, comment AS description
FROM duckdb_columns()
WHERE table_name = $relation
ORDER BY column_index
