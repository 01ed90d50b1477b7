"""Inspections and their exact counts: tables, what ingest brings, and what people ask."""
