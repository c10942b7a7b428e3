"""The plain reference implementations that speed is measured against."""
