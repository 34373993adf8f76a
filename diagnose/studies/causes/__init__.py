"""Why a block is hurt: where its damage enters, by which of AWQ's steps, and what is odd there."""
